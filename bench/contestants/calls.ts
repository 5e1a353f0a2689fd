/**
 * Short chat completions, offered at fixed times however long others take (`offered.ts` says why): to an upstream itself, or to
 * what stands before it. Whole answers are timed to their end, streams to the first piece of text.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Agent } from 'undici'
import { MODELS } from '../../examples/upstream/server.ts'
import { perform } from '../contestant.ts'
import { askControl, type Taken } from '../control.ts'
import { latencyMarks } from '../offered.ts'

const TOKENS = 8
const TICK_MS = 1
const TEXT = Buffer.from('"delta":{"content"')

await perform(async ({ port, rate, stream, folder, controlPort }) => {
  const origin = `http://127.0.0.1:${port}`
  const agent = new Agent({ connections: 256, pipelining: 1 })
  const file = join(String(folder ?? ''), 'keys.json')
  const secrets =
    folder === undefined || !existsSync(file)
      ? ['none']
      : (JSON.parse(readFileSync(file, 'utf8')) as string[])
  const body = JSON.stringify({
    model: MODELS.large,
    messages: [{ role: 'user', content: 'Tell me about the whale.' }],
    max_completion_tokens: TOKENS,
    ...(stream === true && { stream: true }),
  })

  async function call(place: number): Promise<number> {
    const authorization = `Bearer ${secrets[place % secrets.length]}`
    const answer = await agent.request({
      ...{ origin, path: '/v1/chat/completions', method: 'POST', body },
      headers: { authorization, 'content-type': 'application/json' },
    })
    let firstAt: number | undefined
    const pieces: Buffer[] = []
    for await (const piece of answer.body) {
      pieces.push(piece as Buffer)
      if (stream === true && firstAt === undefined && Buffer.concat(pieces).includes(TEXT))
        firstAt = performance.now()
    }
    if (answer.statusCode !== 200) throw new Error(Buffer.concat(pieces).toString())
    return firstAt ?? performance.now()
  }

  async function offer(seconds: number): Promise<number[]> {
    const between = 1_000 / Number(rate)
    const count = Math.ceil((seconds * 1_000) / between)
    const latencies: number[] = []
    const sent: Promise<void>[] = []
    const startedAt = performance.now()
    const send = async (place: number): Promise<void> => {
      latencies.push((await call(place)) - (startedAt + place * between))
    }
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        while (sent.length < count && startedAt + sent.length * between <= performance.now())
          sent.push(send(sent.length))
        if (sent.length < count) return
        clearInterval(timer)
        resolve()
      }, TICK_MS)
    })
    await Promise.all(sent)
    return latencies
  }

  const cpu = async (): Promise<number> =>
    controlPort === undefined ? 0 : (await askControl<Taken>(Number(controlPort), '/cpu')).cpuMicros
  return {
    async run(seconds) {
      const before = await cpu()
      const latencies = await offer(seconds)
      return { ...latencyMarks(latencies), microsPerCall: ((await cpu()) - before) / latencies.length }
    },
    close: () => agent.destroy(),
  }
})
