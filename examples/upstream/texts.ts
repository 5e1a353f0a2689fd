/** Chat completions, completions, responses and embeddings as the OpenAI API has them: its own types hold them to that. */
import type OpenAI from 'openai'
import type { CompletionUsage } from 'openai/resources/completions'
import { embed, type Model, tokensOf } from './ngram.ts'
import { createRun, paced, type Run } from './run.ts'

export type Body = Readonly<Record<string, unknown>>

export interface Setting {
  readonly texts: ReadonlyMap<string, Model>
  readonly embeddings: readonly string[]
  /** 0: as fast as may be. */
  readonly tokensPerSecond: number
  readonly seed: number
  /** Answers end at their bound alone. */
  readonly isEndless: boolean
  /** Whether answers say what they used. */
  readonly isUsageTold: boolean
  readonly now: () => number
  /** A new id that begins so. */
  readonly id: (prefix: string) => string
}

/** A whole body, or the frames of a stream. */
export type Answer = { readonly json: object } | { readonly frames: AsyncIterable<string> }

export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly status: number
  readonly code: string | null
  readonly param: string | null
  constructor(status: number, message: string, param: string | null = null, code: string | null = null) {
    super(message)
    this.status = status
    this.param = param
    this.code = code
  }
}

export type Handler = (body: Body, setting: Setting, signal: AbortSignal) => Promise<Answer>

const DEFAULT_DIMENSIONS = 256
const MAX_DIMENSIONS = 3_072
const MAX_CHOICES = 128
/** For the role and the ends of a message. */
const TOKENS_A_MESSAGE = 3

const isObject = (value: unknown): value is Body =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const seconds = (now: () => number): number => Math.floor(now() / 1_000)
const frame = (data: object): string => `data: ${JSON.stringify(data)}\n\n`
const DONE = 'data: [DONE]\n\n'

function wholeIn(body: Body, name: string, least: number, most: number): number | undefined {
  const value = body[name]
  if (value === undefined || value === null) return undefined
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most)
    return value
  throw new Refusal(400, `${name} is a whole number from ${least} to ${most}`, name, 'invalid_value')
}

function stopsIn({ stop }: Body): readonly string[] {
  const stops = stop === undefined || stop === null ? [] : Array.isArray(stop) ? stop : [stop]
  if (stops.length <= 4 && stops.every((one) => typeof one === 'string' && one !== '')) return stops
  throw new Refusal(400, 'stop is a text, or up to four of them', 'stop', 'invalid_value')
}

function textModel({ model }: Body, { texts }: Setting): Model {
  const found = typeof model === 'string' ? texts.get(model) : undefined
  if (found !== undefined) return found
  throw new Refusal(
    404,
    `The model ${JSON.stringify(model ?? null)} does not exist here`,
    'model',
    'model_not_found',
  )
}

/** Text of a message or an item, whatever parts it comes in. */
function textOf(content: unknown): string {
  if (typeof content === 'string') return content
  if (Array.isArray(content)) return content.map(textOf).join('\n')
  return isObject(content) ? textOf(content.text ?? content.content ?? '') : ''
}

function runsOf(
  body: Body,
  setting: Setting,
  { prompts, most, each = 1 }: { prompts: readonly string[]; most: number | undefined; each?: number },
): Run[] {
  const model = textModel(body, setting)
  const { isEndless } = setting
  const seed = setting.seed + (wholeIn(body, 'seed', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER) ?? 0)
  const stops = stopsIn(body)
  return prompts.flatMap((prompt) =>
    Array.from({ length: each }, (_, choice) =>
      createRun({
        model,
        prompt,
        seed: seed + choice,
        most: most ?? Number.POSITIVE_INFINITY,
        stops,
        isEndless,
      }),
    ),
  )
}

function usageOf(prompt: number, runs: readonly Run[]): CompletionUsage {
  const completion = runs.reduce((sum, { tokens }) => sum + tokens, 0)
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
  }
}

async function whole(runs: readonly Run[], setting: Setting, signal: AbortSignal): Promise<string[]> {
  const texts = runs.map(() => '')
  for await (const [index, piece] of paced(runs, setting.tokensPerSecond, signal)) texts[index] += piece
  return texts
}

const wantsUsage = (body: Body, { isUsageTold }: Setting): boolean =>
  isUsageTold && isObject(body.stream_options) && body.stream_options.include_usage === true

export const chat: Handler = async (body, setting, signal) => {
  const { messages } = body
  if (!Array.isArray(messages) || messages.length === 0 || !messages.every(isObject))
    throw new Refusal(400, 'messages is a list of at least one message', 'messages', 'invalid_type')
  const most = wholeIn(body, 'max_completion_tokens', 1, 1e9) ?? wholeIn(body, 'max_tokens', 1, 1e9)
  const prompt = messages.map(textOf).join('\n')
  const read = tokensOf(prompt).length + TOKENS_A_MESSAGE * messages.length
  const runs = runsOf(body, setting, {
    prompts: [prompt],
    most,
    each: wholeIn(body, 'n', 1, MAX_CHOICES) ?? 1,
  })
  const head = { id: setting.id('chatcmpl'), created: seconds(setting.now), model: String(body.model) }
  if (body.stream === true) return { frames: chatFrames(head, runs, read, body, setting, signal) }
  const texts = await whole(runs, setting, signal)
  return {
    json: {
      ...head,
      object: 'chat.completion',
      choices: runs.map(({ reason }, index) => ({
        index,
        message: { role: 'assistant', content: texts[index] as string, refusal: null, annotations: [] },
        logprobs: null,
        finish_reason: reason,
      })),
      ...(setting.isUsageTold && { usage: usageOf(read, runs) }),
    } satisfies OpenAI.ChatCompletion,
  }
}

interface Head {
  readonly id: string
  readonly created: number
  readonly model: string
}
type Choice = OpenAI.ChatCompletionChunk.Choice

async function* chatFrames(
  head: Head,
  runs: readonly Run[],
  read: number,
  body: Body,
  setting: Setting,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const isTold = wantsUsage(body, setting)
  const chunk = (choices: Choice[], usage: CompletionUsage | null = null): string =>
    frame({
      ...head,
      object: 'chat.completion.chunk',
      choices,
      ...(isTold && { usage }),
    } satisfies OpenAI.ChatCompletionChunk)
  const choice = (index: number, delta: Choice['delta'], finish_reason: Run['reason'] | null = null) =>
    ({ index, delta, logprobs: null, finish_reason }) satisfies Choice
  yield chunk(runs.map((_, index) => choice(index, { role: 'assistant', content: '', refusal: null })))
  for await (const [index, content] of paced(runs, setting.tokensPerSecond, signal))
    yield chunk([choice(index, { content })])
  for (const [index, { reason }] of runs.entries()) yield chunk([choice(index, {}, reason)])
  if (isTold) yield chunk([], usageOf(read, runs))
  yield DONE
}

export const completions: Handler = async (body, setting, signal) => {
  const prompts = (Array.isArray(body.prompt) ? body.prompt : [body.prompt ?? '']) as unknown[]
  if (prompts.length === 0 || !prompts.every((one) => typeof one === 'string'))
    throw new Refusal(400, 'prompt is a text, or a list of texts', 'prompt', 'invalid_type')
  const read = prompts.reduce<number>((sum, prompt) => sum + tokensOf(prompt as string).length, 0)
  const runs = runsOf(body, setting, {
    prompts: prompts as string[],
    most: wholeIn(body, 'max_tokens', 1, 1e9) ?? 16,
    each: wholeIn(body, 'n', 1, MAX_CHOICES) ?? 1,
  })
  const head = { id: setting.id('cmpl'), created: seconds(setting.now), model: String(body.model) }
  const made = (
    choices: readonly { index: number; text: string; finish_reason: Run['reason'] | null }[],
    usage: CompletionUsage | undefined,
  ) => ({
    ...head,
    object: 'text_completion' as const,
    choices: choices.map((choice) => ({ ...choice, logprobs: null })),
    ...(usage !== undefined && { usage }),
  })
  if (body.stream !== true) {
    const texts = await whole(runs, setting, signal)
    const choices = runs.map(({ reason }, index) => ({
      index,
      text: texts[index] as string,
      finish_reason: reason,
    }))
    return {
      json: made(choices, setting.isUsageTold ? usageOf(read, runs) : undefined),
    }
  }
  async function* frames(): AsyncGenerator<string> {
    for await (const [index, text] of paced(runs, setting.tokensPerSecond, signal))
      yield frame(made([{ index, text, finish_reason: null }], undefined))
    yield frame(
      made(
        runs.map(({ reason }, index) => ({ index, text: '', finish_reason: reason })),
        undefined,
      ),
    )
    if (wantsUsage(body, setting)) yield frame(made([], usageOf(read, runs)))
    yield DONE
  }
  return { frames: frames() }
}

export const responses: Handler = async (body, setting, signal) => {
  const prompt = `${textOf(body.instructions)}\n${textOf(body.input)}`
  if (body.input === undefined)
    throw new Refusal(400, 'input is missing', 'input', 'missing_required_parameter')
  const [run] = runsOf(body, setting, { prompts: [prompt], most: wholeIn(body, 'max_output_tokens', 1, 1e9) })
  const made = responseMaker(body, setting, run as Run, tokensOf(prompt).length)
  if (body.stream === true) return { frames: responseFrames(run as Run, made, setting, signal) }
  const [text] = await whole([run as Run], setting, signal)
  return { json: made.response(text) }
}

type Response = Omit<OpenAI.Responses.Response, 'output_text'>

/** The response as it stands: with a text it has ended. */
function responseMaker(body: Body, setting: Setting, run: Run, read: number) {
  const id = setting.id('resp')
  const item = setting.id('msg')
  const created_at = seconds(setting.now)
  const part = (text: string): OpenAI.Responses.ResponseOutputText => ({
    type: 'output_text',
    text,
    annotations: [],
    logprobs: [],
  })
  const message = (text: string | undefined): OpenAI.Responses.ResponseOutputMessage => ({
    id: item,
    type: 'message',
    role: 'assistant',
    status: text === undefined ? 'in_progress' : run.reason === 'length' ? 'incomplete' : 'completed',
    content: text === undefined ? [] : [part(text)],
  })
  const response = (text?: string): Response => ({
    id,
    object: 'response',
    created_at,
    status: text === undefined ? 'in_progress' : run.reason === 'length' ? 'incomplete' : 'completed',
    error: null,
    incomplete_details:
      text !== undefined && run.reason === 'length' ? { reason: 'max_output_tokens' } : null,
    instructions: typeof body.instructions === 'string' ? body.instructions : null,
    max_output_tokens: (body.max_output_tokens as number | undefined) ?? null,
    metadata: {},
    model: String(body.model),
    output: text === undefined ? [] : [message(text)],
    parallel_tool_calls: true,
    temperature: 1,
    tool_choice: 'auto',
    tools: [],
    top_p: 1,
    ...(text !== undefined && setting.isUsageTold && { usage: responseUsage(read, run) }),
  })
  return { item, part, message, response }
}

const responseUsage = (read: number, { tokens }: Run): OpenAI.Responses.ResponseUsage => ({
  input_tokens: read,
  input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
  output_tokens: tokens,
  output_tokens_details: { reasoning_tokens: 0 },
  total_tokens: read + tokens,
})

type Unnumbered<T> = T extends unknown ? Omit<T, 'sequence_number' | 'response'> : never
type ResponseEvent = Unnumbered<OpenAI.Responses.ResponseStreamEvent> & { readonly response?: Response }

async function* responseFrames(
  run: Run,
  { item, part, message, response }: ReturnType<typeof responseMaker>,
  setting: Setting,
  signal: AbortSignal,
): AsyncGenerator<string> {
  let number = 0
  const event = (one: ResponseEvent): string =>
    `event: ${one.type}\n${frame({ ...one, sequence_number: number++ })}`
  const place = { item_id: item, output_index: 0, content_index: 0 }
  yield event({ type: 'response.created', response: response() })
  yield event({ type: 'response.in_progress', response: response() })
  yield event({ type: 'response.output_item.added', output_index: 0, item: message(undefined) })
  yield event({ type: 'response.content_part.added', ...place, part: part('') })
  let text = ''
  for await (const [, delta] of paced([run], setting.tokensPerSecond, signal)) {
    text += delta
    yield event({ type: 'response.output_text.delta', ...place, delta, logprobs: [] })
  }
  yield event({ type: 'response.output_text.done', ...place, text, logprobs: [] })
  yield event({ type: 'response.content_part.done', ...place, part: part(text) })
  yield event({ type: 'response.output_item.done', output_index: 0, item: message(text) })
  yield event({
    type: run.reason === 'length' ? 'response.incomplete' : 'response.completed',
    response: response(text),
  })
}

export const embeddings: Handler = async (body, { embeddings: models, isUsageTold }) => {
  if (!models.includes(String(body.model)))
    throw new Refusal(
      404,
      `The model ${JSON.stringify(body.model ?? null)} does not exist here`,
      'model',
      'model_not_found',
    )
  const inputs = (Array.isArray(body.input) ? body.input : [body.input]) as unknown[]
  if (inputs.length === 0 || !inputs.every((one) => typeof one === 'string' && one !== ''))
    throw new Refusal(400, 'input is a text, or a list of texts', 'input', 'invalid_type')
  const dimensions = wholeIn(body, 'dimensions', 1, MAX_DIMENSIONS) ?? DEFAULT_DIMENSIONS
  const vectors = (inputs as string[]).map((text) => embed(text, dimensions))
  const read = (inputs as string[]).reduce((sum, text) => sum + tokensOf(text).length, 0)
  return {
    json: {
      object: 'list',
      data: vectors.map((vector, index) => ({
        object: 'embedding',
        index,
        // Base64 of 32-bit floats is what the official packages ask for, since it is shorter.
        embedding: body.encoding_format === 'base64' ? base64Of(vector) : vector,
      })),
      model: String(body.model),
      ...(isUsageTold && { usage: { prompt_tokens: read, total_tokens: read } }),
    },
  }
}

const base64Of = (vector: readonly number[]): string =>
  Buffer.from(Float32Array.from(vector).buffer).toString('base64')
