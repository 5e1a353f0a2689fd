/**
 * `npm run demo:gateway`: a person talks to a model through the gateway with the official `openai` package, hits the limit of five
 * hours in the middle of it, buys credits and goes on, and has a video made. The upstream is the example's; nothing leaves this
 * machine, and nothing stays on it. `--fast` lets the upstream answer as fast as it can.
 */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI from 'openai'
import { bold, wrapped } from '../src/cli/output.ts'
import { createEngine } from '../src/engine.ts'
import { createGateway } from '../src/gateway/app.ts'
import { readConfig } from '../src/gateway/config.ts'
import { memoryStore } from '../src/store/memory.ts'
import { MODELS, startUpstream } from './upstream/server.ts'

const POLICY = `
features:
  chat: { rate_card: [{ per_unit: { input_tokens: 0.002, cached_input_tokens: 0.0002, output_tokens: 0.01 } }] }
  video: { rate_card: [{ per_unit: { seconds: 2.5 } }] }
plans:
  plus:
    waterfall:
      - { allowance: included, by: user, features: [chat], windows: [{ name: 5h, limit: "1", per: 5h }] }
      - { credits: [purchased] }
`
const HOUR_MS = 3_600_000
const LINE = 96
const isFast = process.argv.includes('--fast')
// Whoever reads this may stop early.
process.stdout.on('error', () => process.exit())

// Time is the demonstration's own, so that five hours need not be waited for. It goes on from where it is set.
let ahead = 0
const now = (): number => Date.now() + ahead
const upstream = await startUpstream({
  key: 'the-key-of-the-upstream',
  tokensPerSecond: isFast ? 0 : 40,
  renderMs: isFast ? 0 : 250,
})
const engine = await createEngine({ store: memoryStore({ now, wall: now, monotonic: now }), policy: POLICY })
const config = readConfig(
  `upstreams: { book: { provider: openai, url: "${upstream.url}", key_env: BOOK_KEY } }
routes:
  - { model: "${MODELS.video}", upstream: book, feature: video }
  - { upstream: book, feature: chat }`,
  { BOOK_KEY: 'the-key-of-the-upstream' },
)
const gateway = createGateway({ engine, config })
gateway.server.listen(0, '127.0.0.1')
await once(gateway.server, 'listening')
const url = `http://127.0.0.1:${(gateway.server.address() as AddressInfo).port}/v1`

try {
  await demonstrate()
} finally {
  await gateway.close(1_000)
  await engine.close()
  await upstream.close()
}

async function demonstrate(): Promise<void> {
  await engine.createAccount({ id: 'ada', plan: 'plus' })
  const { secret } = await engine.createKey({
    id: 'laptop',
    role: 'call',
    account: 'ada',
    subject: { user: 'ada' },
  })
  const openai = new OpenAI({ baseURL: url, apiKey: secret, maxRetries: 0 })
  say(`Ada's client has a new base URL, ${url}, and a key of ours. Nothing else has changed.`)
  say('Her plan includes 1 CU in five hours; then credits pay, of which she has none.')

  const messages: OpenAI.ChatCompletionMessageParam[] = []
  title('She asks, and asks again')
  await ask(openai, messages, 'Tell me how the voyage began.')
  const cut = await ask(openai, messages, 'And who was the captain?')
  title('The second answer was cut: what was left paid for a part of it')
  await explain(cut)
  title('In the middle of the conversation the five hours are used up')
  await ask(openai, messages, 'Go on!')

  title('She buys 30 credits, and goes on')
  await engine.grant('ada', { id: 'order-1', kind: 'purchased', amount: '30' })
  await explain(await ask(openai, messages))

  if (config.upstreams.get('book')?.provider.endpoints.some(({ path }) => path === '/v1/videos')) {
    title('She has a video made')
    await explain(await film(openai))
  }

  title('Five hours later the plan pays again')
  ahead += 5 * HOUR_MS
  const later = await ask(openai, messages, 'Did they ever see it?')
  const { story } = await engine.explain('ada', later)
  say(story.find((line) => line.includes('It cost')) ?? '')
  const { credits } = await engine.account('ada')
  const { disagreements } = await engine.audit({})
  say(`\nAda has ${credits.available} CU of credits left. The books disagree in ${disagreements} places.`)
}

/** Asks within the conversation, shows the answer as it comes, and returns the request's id. */
async function ask(
  openai: OpenAI,
  messages: OpenAI.ChatCompletionMessageParam[],
  question?: string,
): Promise<string> {
  if (question !== undefined) {
    messages.push({ role: 'user', content: question })
    console.log(`\n  ada    ${bold(question)}`)
  }
  try {
    const { data, response } = await openai.chat.completions
      .create({ model: MODELS.large, messages, stream: true, max_completion_tokens: 60 })
      .withResponse()
    const page = flowing()
    let content = ''
    let finish: string | null = null
    for await (const { choices } of data) {
      const piece = choices[0]?.delta.content ?? ''
      content += piece
      page(piece)
      finish = choices[0]?.finish_reason ?? finish
    }
    messages.push({ role: 'assistant', content })
    const granted = response.headers.get('x-sluice-granted')
    console.log(finish === 'length' ? ` …  [${granted === null ? 'her bound' : `granted: ${granted}`}]` : '')
    return await settled(response.headers.get('x-sluice-request-id') as string)
  } catch (error) {
    if (!(error instanceof OpenAI.RateLimitError)) throw error
    const { message, unblock } = error.error as {
      message: string
      unblock: { wait_until: number; at_most: string }
    }
    console.log(`  429    ${error.code}: ${message}`)
    const until = new Date(unblock.wait_until).toISOString()
    console.log(`         ${unblock.at_most} CU is left; all of it comes back at ${until}`)
    return ''
  }
}

async function film(openai: OpenAI): Promise<string> {
  const order = { model: MODELS.video, prompt: 'A white whale breaches at dawn', seconds: '8' } as const
  let video = await openai.videos.create(order)
  console.log(`\n  ada    ${bold(order.prompt)}, ${order.seconds} seconds`)
  while (video.status === 'queued' || video.status === 'in_progress') {
    console.log(`  film   ${video.status}, ${video.progress} %`)
    await sleep(isFast ? 5 : 500)
    video = await openai.videos.retrieve(video.id)
  }
  const file = await (await openai.videos.downloadContent(video.id)).arrayBuffer()
  console.log(`  film   ${video.status}: ${file.byteLength} bytes of video/mp4`)
  return settled(video.id)
}

/** The charge follows the answer by a moment. */
async function settled(id: string): Promise<string> {
  while ((await engine.explain('ada', id)).state === 'open') await sleep(5)
  return id
}

/** The story that `sluice explain` tells, without its table of facts and the numbers of its transfers. */
async function explain(id: string): Promise<void> {
  const { story, charged } = await engine.explain('ada', id)
  const telling = story.filter((line) => !/^ +(Decided|Transfer)/.test(line))
  const lines = telling.flatMap((line) => wrapped(line, LINE).split('\n'))
  console.log(
    ['', `${bold(`${charged} CU`)}, because:`, ...lines].map((line) => `  │ ${line}`.trimEnd()).join('\n'),
  )
}

/** Prints pieces as they come, in lines that a person can read. */
function flowing(): (piece: string) => void {
  let column = 9
  process.stdout.write('  model  ')
  return (piece) => {
    for (const word of piece.split(/(?= )/)) {
      if (column + word.length > LINE && word.startsWith(' ')) {
        process.stdout.write(`\n         ${word.slice(1)}`)
        column = 8 + word.length
      } else {
        process.stdout.write(word)
        column += word.length
      }
    }
  }
}

function title(text: string): void {
  console.log(`\n${bold(text)}\n${'─'.repeat(text.length)}`)
}

function say(text: string): void {
  console.log(wrapped(text))
}
