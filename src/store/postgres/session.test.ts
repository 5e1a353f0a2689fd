import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Client } from 'pg'
import { type TestDatabase, testDatabase } from '../../../test/postgres.ts'
import { SluiceError } from '../../errors.ts'
import type { Session, Wanted } from '../coalesce.ts'
import { type Connection, connect } from './connection.ts'
import { createParsed } from './parsed.ts'
import { migrate } from './schema.ts'
import { beginSession, lockOf } from './session.ts'

let database: TestDatabase
let connection: Connection
let other: Client
before(async () => {
  database = await testDatabase()
  connection = await connect(database.url, 'test')
  await migrate(connection, async () => 0)
  other = new Client({ connectionString: database.url })
  await other.connect()
})
after(async () => {
  await connection.end()
  await other.end()
  await database.drop()
})

const wanted = (account: string): Wanted => ({ account, ops: [{ keys: ['account'], extra: undefined }] })
const passedOver = new Map<string, number>()
const begin = (...accounts: string[]): Promise<Session> =>
  beginSession(connection, accounts.map(wanted), {
    clock: undefined,
    parsed: createParsed(10),
    passedOver,
    release: () => {},
  })

test('an account that another node has is passed over twice, then waited for, and at last told of', async () => {
  await other.query('begin')
  await other.query('select pg_advisory_xact_lock($1)', [String(lockOf('a'))])
  for (const times of [1, 2]) {
    const session = await begin('a', 'b')
    assert.deepEqual([...(session.away ?? [])], [['a', null]])
    assert.equal(passedOver.get('a'), times)
    assert.equal(session.reader('b')('account'), null)
    session.abandon()
  }
  const given = await begin('a', 'b')
  assert.ok(given.away?.get('a') instanceof SluiceError)
  assert.equal(given.away?.get('a')?.code, 'unavailable')
  assert.ok(!given.away?.has('b'))
  assert.equal(given.reader('b')('account'), null)
  given.abandon()
  const waiting = begin('a', 'b')
  await other.query('commit')
  const session = await waiting
  assert.equal(session.away, undefined)
  assert.equal(passedOver.size, 0)
  session.abandon()
})

test('an account that stands alone is waited for at once', async () => {
  await other.query('begin')
  await other.query('select pg_advisory_xact_lock($1)', [String(lockOf('a'))])
  const waiting = begin('a')
  await other.query('commit')
  const session = await waiting
  assert.equal(session.away, undefined)
  session.abandon()
})
