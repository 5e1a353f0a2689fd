/** What every command does alike: help, one-line errors that say what to do, exit codes. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { ROOT, sluice, temporary } from '../../test/process.ts'

const { folder, remove } = temporary()
after(remove)
const example = join(ROOT, 'examples/codex-and-sora.yaml')

/** One line on standard error, nothing on standard output. */
async function refused(code: number, says: RegExp, ...args: readonly string[]): Promise<void> {
  const ended = await sluice(args)
  assert.match(ended.stderr, says)
  assert.deepEqual(
    [ended.code, ended.stdout, ended.stderr.trimEnd().split('\n').length],
    [code, '', 1],
    ended.stderr,
  )
}

/** A port on which nobody listens: it was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

describe('the command line', () => {
  test('--help and --version answer, and end with 0', async () => {
    const help = await sluice(['--help'])
    assert.equal(help.code, 0)
    for (const command of [
      'serve',
      'migrate',
      'replay',
      'audit',
      'explain',
      'account',
      'grant',
      'key',
      'erase',
      'clock',
      'policy',
    ]) {
      assert.match(help.stdout, new RegExp(`^  ${command}\\b`, 'm'))
    }
    assert.match((await sluice(['--version'])).stdout, /^\d+\.\d+\.\d+/)
  })
  test('no command at all shows the help, and ends with 2', async () => {
    const { code, stderr } = await sluice([])
    assert.equal(code, 2)
    assert.match(stderr, /Usage: sluice/)
  })
  test('an unknown flag is told in one line, with the one that was meant', () =>
    refused(2, /^sluice: Unknown option '--stor'\. Did you mean --store\?$/m, 'audit', '--stor', 'x'))
  test('an unknown command is told in one line, with the one that was meant', () =>
    refused(2, /^sluice: Unknown command 'polizy'\. Did you mean policy\?$/m, 'polizy'))
  test('a missing argument is told by its name', () =>
    refused(2, /Missing required argument 'account'/, 'account', 'show'))
  test('a value that cannot be read is told with what is taken', () =>
    refused(
      2,
      /It takes an instant such as 2026-12-31/,
      'grant',
      'issue',
      'a',
      '1',
      '--kind',
      'free',
      '--expires',
      'soon',
    ))
})

describe('what a command acts on', () => {
  test('of an unknown store only the scheme is told, because the rest may hold a password', async () => {
    const { code, stderr } = await sluice(['serve', '--store', 'mysql://u:hunter2@h/d'])
    assert.equal(code, 2)
    assert.match(stderr, /No store is known as mysql:\. Known are memory:, sqlite:PATH, postgres:/)
    assert.doesNotMatch(stderr, /hunter2/)
  })
  test('the schema of a file is brought up to date as by opening it, and memory has none', async () => {
    const { code, stdout } = await sluice([
      ...['migrate', '--store', `sqlite:${join(folder, 'new/sluice.db')}`, '--json'],
    ])
    assert.deepEqual([code, JSON.parse(stdout).version > 0], [0, true])
    await refused(2, /A memory store ends with its process/, 'migrate', '--store', 'memory:')
  })
  test('a mistyped path leaves no new store behind', async () => {
    const path = join(folder, 'none/sluice.db')
    await refused(3, /There is no store at/, 'account', 'show', 'a', '--store', `sqlite:${path}`)
    await refused(
      3,
      /There is no store at/,
      'account',
      'set',
      'a',
      '--plan',
      'p',
      '--store',
      `sqlite:${path}`,
    )
    assert.equal(existsSync(path), false)
  })
  test('a server that does not answer ends with 3', async () => {
    const url = `http://127.0.0.1:${await freePort()}`
    await refused(
      3,
      /does not answer: ECONNREFUSED\. Check --url/,
      'account',
      'list',
      '--url',
      url,
      '--key',
      'k',
    )
  })
  test('a server without a key is a mistake of the command line', () =>
    refused(2, /SLUICE_KEY/, 'account', 'list', '--url', 'http://127.0.0.1:9'))
  test('a clock is accepted by a running server, or by nobody', () =>
    refused(2, /Name it with --url and --key/, 'clock', 'accept'))
  test('a server and a store at once are a mistake', () =>
    refused(
      2,
      /Give one of them/,
      'account',
      'list',
      '--url',
      'http://h',
      '--key',
      'k',
      '--store',
      'sqlite:x',
    ))
})

describe('policy', () => {
  const broken = join(folder, 'broken.yaml')
  before(() =>
    writeFileSync(
      broken,
      'features:\n  chat: {}\nplans:\n  p:\n    guards:\n      - { name: a, rate: { limit: -1, per: 1m } }\n    waterfall: []\n',
    ),
  )

  test('check tells each complaint with its line, its path and what would be right, and ends with 1', async () => {
    const { code, stdout } = await sluice(['policy', 'check', broken])
    assert.equal(code, 1)
    assert.match(stdout, /broken\.yaml:6:\d+: \/plans\/p\/guards\/0\/rate\S* must /)
  })
  test('check --json is JSON, valid or not', async () => {
    const bad = JSON.parse((await sluice(['policy', 'check', broken, '--json'])).stdout)
    assert.equal(bad.valid, false)
    assert.equal(bad.complaints[0].line, 6)
    const good = await sluice(['policy', 'check', example, '--json'])
    assert.deepEqual([good.code, JSON.parse(good.stdout).valid], [0, true])
  })
  test('a file that is not there ends with 3', () =>
    refused(3, /there is no such file/, 'policy', 'check', join(folder, 'x')))
  test('schema is a JSON Schema', async () => {
    assert.match(JSON.parse((await sluice(['policy', 'schema'])).stdout).$schema, /2020-12/)
  })
  test('diff tells what changes, and --exit-code says so to a script', async () => {
    const changed = join(folder, 'changed.json')
    const policy = (limit: number) =>
      JSON.stringify({
        features: { chat: {} },
        plans: { p: { guards: [{ name: 'g', concurrency: limit }], waterfall: [{ credits: ['free'] }] } },
      })
    writeFileSync(join(folder, 'old.json'), policy(2))
    writeFileSync(changed, policy(3))
    const { code, stdout } = await sluice([
      'policy',
      'diff',
      join(folder, 'old.json'),
      changed,
      '--exit-code',
    ])
    assert.match(stdout, /plans\/p\/guards\/g\/limit: 2 → 3/)
    assert.equal(code, 1)
    const same = await sluice(['policy', 'diff', changed, changed, '--exit-code', '--json'])
    assert.deepEqual([same.code, JSON.parse(same.stdout)], [0, { changes: [] }])
  })
})
