import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryStore } from '../store/memory.ts'
import { POLICY } from './fixtures/policy.ts'
import { ADMIN_KEY, createWorld } from './fixtures/world.ts'
import { createLog } from './log.ts'

const into = (lines: string[]) => createLog('trace', { write: (line: string) => void lines.push(line) })

test('a line a request: its id, route, status, time, and what was decided; nothing else of it', async () => {
  const lines: string[] = []
  const world = await createWorld({
    storeOf: (now) => memoryStore({ now }),
    policy: POLICY,
    accounts: [{ id: 'acme', plan: 'plus' }],
    log: into(lines),
  })
  lines.length = 0
  const body = { request_id: 'r-1', account: 'acme', feature: 'chat', subject: { user: 'u1' }, cost: '11' }
  await world.ask('POST', '/v1/reserve', { body, headers: { 'x-request-id': 'trace-1' } })
  await world.ask('GET', '/v1/accounts/acme?user=somebody@example.org')
  await world.ask('GET', '/v1/nowhere/secret-place', { key: null })
  await world.ask('POST', '/v1/reserve', { body: '{"account":"not-admitted"' })
  await world.close()
  const [reserved, read, lost, broken] = lines.map((line) => JSON.parse(line))
  const { time, ms, ...told } = reserved
  assert.ok(Number.isInteger(time) && ms >= 0)
  assert.deepEqual(told, {
    ...{ level: 'info', id: 'trace-1', method: 'POST', route: '/v1/reserve', status: 200, key: 'admin' },
    ...{ account: 'acme', request: 'r-1', outcome: 'deny', reason: 'allowance_spent', msg: 'answered' },
  })
  assert.deepEqual([read.route, read.account], ['/v1/accounts/:id', 'acme'])
  assert.deepEqual([lost.route, lost.status, lost.code], ['none', 404, 'not_found'])
  assert.deepEqual([broken.code, broken.account], ['invalid', undefined])
  assert.doesNotMatch(lines.join(''), /somebody|secret-place|not-admitted/)
})

test('no secret ever shows, whatever goes wrong with it', async () => {
  const lines: string[] = []
  const world = await createWorld({
    storeOf: (now) => memoryStore({ now }),
    policy: POLICY,
    log: into(lines),
    through: (engine) => ({
      ...engine,
      settle: () =>
        Promise.reject(
          Object.assign(new Error('a defect'), { authorization: 'Bearer s3cret', secret: 's3cret' }),
        ),
    }),
  })
  const secret = await world.makeKey({ id: 'k', role: 'meter' })
  const secrets = [ADMIN_KEY, secret, 's3cret']
  const body = { request_id: 'r', account: 'acme', cost: '1' }
  await world.post('/v1/settle', body, secret)
  await world.post('/v1/batch', { operations: [{ op: 'settle', ...body }] }, secret)
  await world.get('/v1/keys', secret)
  await world.get('/v1/keys', `${secret}x`)
  await world.get(`/v1/keys?key=${secret}`)
  await world.ask('POST', `/v1/keys/${secret}/revoke`)
  await world.ask('POST', '/v1/reserve', { body: `{"secret":"${secret}"` })
  await world.ask('POST', '/v1/reserve', { body: { secret } })
  await world.close()
  const text = lines.join('')
  assert.equal(lines.filter((line) => line.includes('"failed"')).length, 2)
  for (const hidden of secrets) assert.ok(!text.includes(hidden), hidden)
  assert.ok(text.includes('[redacted]'))
})

test('secrets under their usual names are replaced, where a line carries one by mistake', () => {
  const lines: string[] = []
  const log = into(lines)
  for (const name of ['authorization', 'secret', 'secretHash', 'adminKey', 'password', 'cookie']) {
    for (const line of [
      { [name]: 's3cret' },
      { headers: { [name]: 's3cret' } },
      { body: { [name]: 's3cret' } },
      { req: { headers: { [name]: 's3cret' } } },
    ]) {
      log.info(line, 'x')
    }
  }
  assert.equal(lines.length, 24)
  assert.ok(!lines.join('').includes('s3cret'))
})
