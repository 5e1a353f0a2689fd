import assert from 'node:assert/strict'
import { test } from 'node:test'
import { POLICY } from '../../../test/beside.ts'
import { createEngine } from '../../engine.ts'
import { createKeyring } from '../../keyring.ts'
import { memoryStore } from '../../store/memory.ts'
import { createCalls } from '../calls.ts'
import { readConfig } from '../config.ts'
import type { ForwardAuthConfig } from './config.ts'
import { createGate } from './gate.ts'

test('who hangs up before the answer pays nothing, unless the same id may ask again', async () => {
  const engine = await createEngine({ store: memoryStore(), policy: POLICY as never })
  await engine.createAccount({ id: 'a', plan: 'plan' })
  await engine.grant('a', { id: 'g', kind: 'purchased', amount: '100' })
  const { secret } = await engine.createKey({ id: 'k', role: 'meter', account: 'a' })
  const { beside } = readConfig(
    `forward_auth:
  request_id_header: x-request-id
  rules: [{ path: /held, feature: tokens, hold: 1h }, { path: /paid, feature: call, cost: '2' }]`,
    {},
  )
  const gate = createGate({
    engine,
    keyring: createKeyring(engine),
    calls: createCalls(engine, 'closed', () => {}),
    payer: ({ account }) => ({ account: account as string, subject: undefined }),
    config: beside.forwardAuth as ForwardAuthConfig,
    onFault: assert.ifError,
  })
  const ask = (target: string, id?: string) =>
    gate.ask(
      {
        ...{ method: 'GET', target },
        field: (name) => (name === 'authorization' ? `Bearer ${secret}` : id),
      },
      AbortSignal.abort(new Error('gone')),
    )
  const credits = async () => {
    const { available, held } = (await engine.account('a')).credits
    return [available, held]
  }
  await ask('/held')
  await ask('/paid')
  assert.deepEqual(await credits(), ['100', '0'])
  await ask('/paid', 'r1')
  assert.deepEqual(await credits(), ['98', '0'])
  assert.equal((await ask('/paid', 'r1')).kind, 'passed')
  await ask('/held', 'r2')
  assert.deepEqual(await credits(), ['78', '20'])
  await engine.close()
})
