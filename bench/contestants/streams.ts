/** Many streams at once, each as long as a turn: what they take of what they pass through, and whether each was charged exactly. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent } from 'undici'
import { MODELS } from '../../examples/upstream/server.ts'
import { type Marks, perform } from '../contestant.ts'
import { askControl, type Taken } from '../control.ts'

/** Opened together; then others, so that no queue of connections overflows. */
const TOGETHER = 50
const PAUSE_MS = 20
/** Shares of the time at which memory is looked at: all are open at the first, none has ended at the last. */
const EARLY = 0.3
const LATE = 0.9

await perform(async ({ port, controlPort, streams, tokensPerSecond, folder }) => {
  const agent = new Agent({ connections: Number(streams), pipelining: 1 })
  const file = join(String(folder), 'keys.json')
  const secrets = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as string[]) : ['none']
  const ask = <T>(path: string): Promise<T> => askControl<T>(Number(controlPort), path)

  /** Reads one to its end, and answers how many tokens came. */
  async function read(place: number, tokens: number): Promise<number> {
    const answer = await agent.request({
      ...{ origin: `http://127.0.0.1:${port}`, path: '/v1/chat/completions', method: 'POST' },
      headers: {
        authorization: `Bearer ${secrets[place % secrets.length]}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify({
        model: MODELS.large,
        messages: [{ role: 'user', content: `Tell me about whale ${place}.` }],
        max_completion_tokens: tokens,
        stream: true,
      }),
    })
    let rest = ''
    let seen = 0
    let isWhole = false
    for await (const piece of answer.body) {
      const lines = (rest + piece).split('\n')
      rest = lines.pop() as string
      for (const line of lines) {
        if (line.includes('"delta":{"content":')) seen++
        if (line === 'data: [DONE]') isWhole = true
      }
    }
    if (answer.statusCode !== 200 || !isWhole)
      throw new Error(`stream ${place}: ${answer.statusCode}, ${seen} tokens`)
    return seen
  }

  return {
    async run(seconds): Promise<Marks> {
      const tokens = Math.ceil(seconds * Number(tokensPerSecond))
      // A few go before, so that what is made once is there.
      const before = await Promise.all(Array.from({ length: 20 }, (_, place) => read(place, 1)))
      const none = await ask<Taken>('/memory')
      const startedAt = performance.now()
      const open: Promise<number>[] = []
      while (open.length < Number(streams)) {
        if (open.length % TOGETHER === 0) await sleep(PAUSE_MS)
        open.push(read(open.length, tokens))
      }
      const all = Promise.all(open)
      all.catch(() => {})
      const at = (share: number) =>
        sleep(Math.max(0, startedAt + share * seconds * 1_000 - performance.now()))
      await at(EARLY)
      const [early, cpuBefore] = [await ask<Taken>('/memory'), await ask<Taken>('/cpu')]
      await at(LATE)
      const [cpuAfter, late] = [await ask<Taken>('/cpu'), await ask<Taken>('/memory')]
      const seen = (await all).reduce(
        (sum, one) => sum + one,
        before.reduce((sum, one) => sum + one, 0),
      )
      const books = await ask<{ outputTokens?: number; disagreements?: number }>('/books')
      if (books.outputTokens !== undefined && (books.outputTokens !== seen || books.disagreements !== 0))
        throw new Error(
          `${seen} tokens came, ${books.outputTokens} were charged, ${books.disagreements} disagreements`,
        )
      const each = (bytes: number): number => bytes / Number(streams)
      return {
        bytes: each(late.usedBytes - none.usedBytes),
        rssBytes: each(late.rssBytes - none.rssBytes),
        grownBytes: each(late.usedBytes - early.usedBytes),
        cpuShare: (cpuAfter.cpuMicros - cpuBefore.cpuMicros) / ((LATE - EARLY) * seconds * 1e6),
        tokens: seen,
      }
    },
    close: () => agent.destroy(),
  }
})
