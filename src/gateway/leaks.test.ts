import assert from 'node:assert/strict'
import { Agent, request as ask } from 'node:http'
import { test } from 'node:test'
import { openGateway, until } from '../../test/gateway.ts'
import { speakOpenai } from '../../test/openai-wire.ts'

const CALLS = 10_000
const AT_ONCE = 40

/** What keeps this process alive or could, by kind. */
function resources(): Readonly<Record<string, number>> {
  const all: Record<string, number> = {}
  for (const name of process.getActiveResourcesInfo()) all[name] = (all[name] ?? 0) + 1
  return all
}

test(`${CALLS} calls, some of which are left early, leave nothing behind`, async (t) => {
  const warnings: Error[] = []
  const warn = (warning: Error): void => void warnings.push(warning)
  process.on('warning', warn)
  t.after(() => process.off('warning', warn))
  const scene = await openGateway({ usual: speakOpenai, config: 'plans: { plan: { wait: 1h } }' })
  const secret = await scene.account('a', '100000000')
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  const call = (n: number) =>
    new Promise<void>((resolve) => {
      const body = JSON.stringify({
        ...{ model: 'm', max_tokens: 10, stream: n % 2 === 0 },
        messages: [{ role: 'user', content: 'hello' }],
      })
      const sent = ask(`${scene.url}/v1/chat/completions`, {
        ...{ agent, method: 'POST' },
        headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
      })
      sent.on('error', () => resolve())
      sent.on('response', (response) => {
        response.on('close', () => resolve())
        response.on('error', () => {})
        if (n % 10 === 3) response.destroy()
        else response.resume()
      })
      sent.end(body)
      if (n % 10 === 7) setTimeout(() => sent.destroy(), n % 20)
    })
  const many = async (count: number) => {
    let next = 0
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        while (next < count) await call(next++)
      }),
    )
    await scene.settled('a')
    await until(
      () => scene.upstream.running,
      (running) => running === 0,
    )
  }
  // Whatever is made once is there after the first.
  await many(500)
  const before = resources()
  await many(CALLS)
  agent.destroy()
  const kinds = ['Timeout', 'Immediate', 'TCPSocketWrap']
  const isNoMore = (now: Readonly<Record<string, number>>): boolean =>
    kinds.every((kind) => (now[kind] ?? 0) <= (before[kind] ?? 0) + 2)
  const after = await until(resources, isNoMore)
  assert.ok(isNoMore(after))
  assert.deepEqual(warnings, [])
  await scene.close()
  await until(resources, (now) => now.TCPSocketWrap === undefined && now.TCPServerWrap === undefined)
})
