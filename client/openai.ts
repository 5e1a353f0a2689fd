/** The package `openai`: a `fetch` that meters chat completions and responses, streamed or not. */
import type { AccessOptions, AccessRequest } from './access.ts'
import type { Client } from './client.ts'
import { refusalOf } from './guard.ts'
import { type Opened, open } from './open.ts'
import { estimateTokens, reportTokens, type Tokens, tokensOfText, tokensTold } from './tokens.ts'
import { watched } from './watched.ts'

export { estimateTokens, type Tokens }

/** A call of the API, to be mapped to what it needs. */
export interface OpenAICall {
  /** As it was sent: `model`, `messages` or `input`, and the rest. */
  readonly body: Readonly<Record<string, unknown>>
  /** `/v1/chat/completions`, as it stands in the address. */
  readonly path: string
}

/** How calls of the API are metered; the rest is as `access` takes it. */
export interface MeteredFetchOptions extends AccessOptions {
  readonly client: Client
  /** Whom the call is for and what it needs. Without an estimate: the input by length, the output by its bound. */
  request(call: OpenAICall): AccessRequest | Promise<AccessRequest>
  /** In place of the runtime's. */
  readonly fetch?: typeof globalThis.fetch
}

/** The package waits no longer than this: where it is told to, it tries again after a second or so, in vain. */
const LONGEST_WAIT_MS = 60_000
const METERED = /\/(chat\/completions|responses|completions)$/

/**
 * `new OpenAI({ fetch: meteredFetch({ client, request }) })`. A refusal is answered as the API answers one, 429 with an error
 * inside, so that the package throws its `RateLimitError`; it is marked not to be retried unless a short wait helps. Streamed chat
 * completions are asked for their usage; its chunk, which has no choices, is shown to those who asked for it themselves.
 */
export function meteredFetch(options: MeteredFetchOptions): typeof globalThis.fetch {
  const send = options.fetch ?? ((...given) => globalThis.fetch(...given))
  return async (input, init) => {
    const { pathname } = new URL(input instanceof Request ? input.url : String(input))
    const body = METERED.test(pathname) ? bodyOf(init) : undefined
    if (body === undefined) return send(input, init)
    const asked = await options.request({ body, path: pathname })
    const hasAmount = asked.estimate !== undefined || asked.cost !== undefined
    const estimate = estimateTokens(body.messages ?? body.input ?? body.prompt, boundOf(body))
    const opened = await open(options.client, hasAmount ? asked : { ...asked, estimate }, {
      ...options,
      ...(init?.signal && {
        signal: options.signal === undefined ? init.signal : AbortSignal.any([options.signal, init.signal]),
      }),
    })
    if (!opened.ok) {
      const { status, headers } = refusalOf(opened)
      const { outcome, reason, retryAfterMs = 0, decision } = opened
      const message = `${outcome}: ${reason}`
      const error = { message, type: 'sluice', code: reason, param: null, unblock: decision?.unblock }
      const retries = outcome === 'unavailable' || (outcome === 'wait' && retryAfterMs < LONGEST_WAIT_MS)
      return new Response(JSON.stringify({ error }), {
        status,
        headers: { ...headers, 'content-type': 'application/json', 'x-should-retry': String(retries) },
      })
    }
    try {
      const asking = askingForUsage(body, pathname)
      const response = await send(input, {
        ...init,
        body: JSON.stringify(asking),
        signal: opened.lease.signal,
      })
      return await meteredResponse(response, opened, estimate.input_tokens, asking === body)
    } catch (error) {
      await opened.end('failed')
      throw error
    }
  }
}

function bodyOf(init: RequestInit | undefined): Record<string, unknown> | undefined {
  try {
    const body: unknown = typeof init?.body === 'string' ? JSON.parse(init.body) : undefined
    return typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

function boundOf(body: Readonly<Record<string, unknown>>): number | undefined {
  const bound = body.max_completion_tokens ?? body.max_output_tokens ?? body.max_tokens
  return typeof bound === 'number' ? bound : undefined
}

function askingForUsage(body: Readonly<Record<string, unknown>>, path: string): Record<string, unknown> {
  const options = object(body.stream_options)
  if (body.stream !== true || path.endsWith('/responses') || options?.include_usage === true) return body
  return { ...body, stream_options: { ...options, include_usage: true } }
}

async function meteredResponse(
  response: Response,
  opened: Opened,
  input: number,
  isUsageShown: boolean,
): Promise<Response> {
  const { body, status, statusText, headers } = response
  if (body === null || !response.ok) {
    await opened.end(response.ok ? 'done' : 'failed')
    return response
  }
  const isStream = headers.get('content-type')?.includes('text/event-stream') === true
  const note = isStream ? eventsRead(opened, input) : wholeRead(opened)
  const decoder = new TextDecoder()
  const read = watched(
    body,
    (piece) => void note(decoder.decode(piece, { stream: true }), false),
    (how) => opened.end(how === 'done' && !note(decoder.decode(), true) ? 'failed' : how),
  )
  const shown = isStream && !isUsageShown ? read.pipeThrough(withoutUsage()) : read
  return new Response(shown, { status, statusText, headers })
}

/** Leaves out the chunk of usage, which has no choices: code that did not ask for it looks for them in every chunk. */
function withoutUsage(): TransformStream<Uint8Array, Uint8Array> {
  const decoder = new TextDecoder()
  const encoder = new TextEncoder()
  let rest = ''
  const show = (text: string, to: TransformStreamDefaultController<Uint8Array>): void => {
    const events = text.split(/(?<=\n\n|\r\n\r\n)/).filter((event) => !isUsage(event))
    if (events.length > 0 && text !== '') to.enqueue(encoder.encode(events.join('')))
  }
  return new TransformStream({
    transform(piece, to) {
      rest += decoder.decode(piece, { stream: true })
      const ends = [rest.lastIndexOf('\n\n') + 2, rest.lastIndexOf('\r\n\r\n') + 4]
      const end = Math.max(...ends.filter((at) => at > 3), 0)
      show(rest.slice(0, end), to)
      rest = rest.slice(end)
    },
    flush: (to) => show(rest, to),
  })
}

function isUsage(event: string): boolean {
  if (!/"choices"\s*:\s*\[\s*\]/.test(event)) return false
  const chunk = parse(/^data:(.*)$/m.exec(event)?.[1] ?? '')
  return Array.isArray(chunk?.choices) && chunk.choices.length === 0 && object(chunk.usage) !== undefined
}

/** Told of the text as it comes, and of its end, where it says whether the answer was whole. */
type Read = (text: string, isEnd: boolean) => boolean

function wholeRead({ lease }: Opened): Read {
  let text = ''
  return (piece, isEnd) => {
    text += piece
    if (!isEnd) return false
    reportTokens(lease, usageIn(parse(text)) ?? {})
    return true
  }
}

function eventsRead({ lease }: Opened, input: number): Read {
  let rest = ''
  let characters = 0
  let whole = false
  let told = false
  return (piece, isEnd) => {
    const lines = (rest + piece).split(/\r\n|\n|\r/)
    rest = isEnd ? '' : (lines.pop() ?? '')
    for (const line of lines) {
      if (!line.startsWith('data:')) continue
      const data = line.slice('data:'.length).trim()
      if (data === '[DONE]') {
        whole = true
        continue
      }
      const event = parse(data)
      const usage = usageIn(event)
      if (usage !== undefined) {
        told = true
        whole ||= event?.type === 'response.completed' || event?.type === 'response.incomplete'
        reportTokens(lease, usage)
        continue
      }
      characters += deltaOf(event)
      if (!told)
        lease.report({ input_tokens: input, output_tokens: tokensOfText(characters) }, { estimated: true })
    }
    return whole
  }
}

type Json = Readonly<Record<string, unknown>>
const object = (value: unknown): Json | undefined =>
  typeof value === 'object' && value !== null ? (value as Json) : undefined

function parse(text: string): Json | undefined {
  try {
    return object(JSON.parse(text))
  } catch {
    return undefined
  }
}

/** Of an answer, a chunk or an event; completions and responses name the same things differently. */
function usageIn(answer: Json | undefined): Partial<Tokens> | undefined {
  const usage = object(answer?.usage) ?? object(object(answer?.response)?.usage)
  if (usage === undefined) return undefined
  const details = object(usage.input_tokens_details) ?? object(usage.prompt_tokens_details)
  return tokensTold({
    input: usage.input_tokens ?? usage.prompt_tokens,
    cached: details?.cached_tokens,
    output: usage.output_tokens ?? usage.completion_tokens,
  })
}

/** Characters that an event brings. */
function deltaOf(event: Json | undefined): number {
  if (typeof event?.delta === 'string') return event.delta.length
  const choices = Array.isArray(event?.choices) ? event.choices : []
  return choices.reduce((sum: number, choice: unknown) => {
    const delta = object(object(choice)?.delta)
    if (delta === undefined) return sum
    // Sound is no text: a second of it has more characters than a page. What is said in it stands beside it.
    const { audio, role: _, ...said } = delta
    const all = [...Object.values(said), object(audio)?.transcript].filter((one) => one != null)
    return all.length === 0 ? sum : sum + JSON.stringify(all).length - 2
  }, 0)
}
