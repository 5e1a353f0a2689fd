import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Client } from 'pg'
import { type TestDatabase, testDatabase } from '../../../test/postgres.ts'
import { SluiceError } from '../../errors.ts'
import type { Session, Wanted } from '../coalesce.ts'
import { type Connection, connect } from './connection.ts'
import { createParsed } from './parsed.ts'
import { migrate } from './schema.ts'
import { beginSession } from './session.ts'

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
  await other.query("select pg_advisory_xact_lock(hashtextextended('a', 0))")
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
  // Whoever comes then makes the others wait no sooner than before.
  assert.equal(passedOver.size, 0)
  await other.query('commit')
})

test('one that is waited for in vain takes no other along, however often that one was passed over', async () => {
  await other.query('begin')
  await other.query("select pg_advisory_xact_lock(hashtextextended('a', 0))")
  passedOver.set('a', 2).set('b', 2).set('c', 2)
  const session = await begin('a', 'b', 'c')
  assert.equal(session.away?.get('a')?.code, 'unavailable')
  assert.deepEqual([...(session.away?.keys() ?? [])], ['a'])
  assert.equal(session.reader('b')('account'), null)
  assert.equal(passedOver.size, 0)
  session.abandon()
  await other.query('commit')
})

test('of several that were passed over, the one that was so most often is waited for', async () => {
  await other.query("select pg_advisory_lock(hashtextextended(a, 0)) from unnest(array['a', 'b']) as a")
  passedOver.set('a', 2).set('b', 3)
  const waiting = begin('a', 'b', 'c')
  await other.query("select pg_advisory_unlock(hashtextextended('b', 0))")
  const session = await waiting
  assert.deepEqual([...(session.away ?? [])], [['a', null]])
  assert.deepEqual([...passedOver], [['a', 3]])
  session.abandon()
  passedOver.clear()
  await other.query('select pg_advisory_unlock_all()')
})

test('an account that stands alone is waited for at once', async () => {
  await other.query('begin')
  await other.query("select pg_advisory_xact_lock(hashtextextended('a', 0))")
  const waiting = begin('a')
  await other.query('commit')
  const session = await waiting
  assert.equal(session.away, undefined)
  session.abandon()
})

test('the cells of an open request’s subject come with it, whether or not this node knows the request', async () => {
  const request = { v: 1, id: 'r', state: 'open', subject: { user: 'u', team: 't' } }
  await other.query("insert into sluice.hold values ('a', 'r', 1, $1)", [JSON.stringify(request)])
  await other.query("insert into sluice.cell values ('a', 'subject:user=u', $1)", [JSON.stringify({ v: 1 })])
  const parsed = createParsed(10)
  for (const known of [false, true]) {
    assert.equal(parsed.peek('a', 'request:r') !== undefined, known)
    const session = await beginSession(
      connection,
      [{ account: 'a', ops: [{ keys: ['account', 'request:r'], extra: undefined }] }],
      { clock: undefined, parsed, passedOver, release: () => {} },
    )
    const read = session.reader('a')
    assert.deepEqual(read('subject:user=u'), { v: 1 })
    assert.equal(read('subject:team=t'), null)
    assert.equal(read('subject:key=k'), undefined)
    session.abandon()
  }
})
