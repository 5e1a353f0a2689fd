/** Addresses of stores: what is read, and what is told of them. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CliError } from './failure.ts'
import { nameOf, parseStore } from './stores.ts'

describe('an address', () => {
  test('of memory and of SQLite says what is meant', () => {
    assert.deepEqual(parseStore('memory:'), { kind: 'memory' })
    assert.deepEqual(parseStore('sqlite://a/b.db'), { kind: 'sqlite', path: 'a/b.db', folder: 'a' })
  })

  test('of a PostgreSQL is its URL, and is told without user, password and parameters', () => {
    for (const [url, name] of [
      ['postgres://u:hunter2@db.internal:5433/sluice', 'postgres://db.internal:5433/sluice'],
      ['postgresql://u:hunter2@[::1]/sluice?sslmode=verify-full', 'postgres://[::1]/sluice'],
      ['postgres://u:h%40%2F%23hunter2@h/d', 'postgres://h/d'],
      ['postgres://h/d?password=hunter2', 'postgres://h/d'],
      ['postgres:///d?host=/var/run/postgresql', 'postgres:///d'],
    ] as const) {
      const address = parseStore(url)
      assert.deepEqual([address, nameOf(address)], [{ kind: 'postgres', url }, name])
    }
  })

  test('of a PostgreSQL that can be read in two ways is refused, and none of it is told', () => {
    for (const url of [
      'postgres:hunter2',
      'postgres:/hunter2',
      'postgres://',
      'postgres://u:hunter2@h',
      'postgres://u:hunter2@h/',
      'postgres://u:hunter2@h?database=d',
      'postgres://u:hunter2@',
      'postgres://u:hunter2@h:port/d',
      'postgres://u:hunter2@h:99999/d',
      'postgres://u:1/hunter2@h/d',
      'postgres://u:1?hunter2@h/d',
      'postgres://u:1#hunter2@h/d',
      'postgres://u:hunter2%@h/d',
      'postgres://u:hunter2%zz@h/d',
      'postgres://u:hunter2%ff@h/d',
      'postgres://u:hunter 2@h/d',
      'postgres://u:hunter2@a,b/d',
      'postgres://u:hunter2@h/d\n',
    ]) {
      const says = (error: unknown): boolean =>
        error instanceof CliError &&
        error.exit === 2 &&
        error.remedy?.includes('%40') === true &&
        !/hunter|@h/.test(`${error.message} ${error.stack}`)
      assert.throws(() => parseStore(url), says, url)
    }
  })
})
