/** A worker: each line of standard input is a job, an account and what it asks. */
import { createInterface } from 'node:readline'
import { createClient, type Refused } from '@sluice/client'
import { closeOnSignals } from '@sluice/client/node'

const sluice = createClient({
  url: process.env.SLUICE_URL ?? 'http://127.0.0.1:8787',
  key: process.env.SLUICE_KEY ?? '',
  // While Sluice is away, each account may go on for as much as half a CU.
  onUnavailable: { mode: 'bounded', perAccount: '0.5' },
})
closeOnSignals(sluice)

for await (const line of createInterface({ input: process.stdin })) {
  const [account = '', ...words] = line.split(' ')
  console.log(await work(account, words))
}
await sluice.close()

async function work(account: string, words: readonly string[]): Promise<string> {
  const estimate = { input_tokens: words.length, output_tokens: 50 }
  const answer = await sluice.access({ account, feature: 'chat', estimate }, async (lease) => {
    let text = ''
    let tokens = 0
    for await (const word of model(words)) {
      text += ` ${word}`
      // All that was used so far. False: no more is granted, so stop here.
      if (!lease.report({ input_tokens: words.length, output_tokens: ++tokens })) break
    }
    return text
  })
  if (!answer.ok) return refused(answer)
  const { request_id, value, charge } = answer
  return `${account}:${value} (${request_id}: ${charge === undefined ? 'charged later' : `${charge.charged} CU`})`
}

function refused({ outcome, reason, retryAfterMs, decision }: Refused): string {
  if (outcome === 'unavailable') return 'Sluice is away, and what may pass without it is used up'
  if (outcome === 'wait') return `${reason}: try again in ${Math.ceil((retryAfterMs ?? 0) / 1000)} s`
  return `${reason}: ${decision?.unblock?.credits ?? 'no'} CU more would do`
}

/** Stands for your model: it says what it was told, a token at a time. */
async function* model(words: readonly string[]): AsyncGenerator<string> {
  yield* words
}
