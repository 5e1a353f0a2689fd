/** The OpenAI API: chat completions, responses, completions, embeddings. Its clients are the most there are. */
import type { Quantities } from '../../wire.ts'
import {
  type Asked,
  BadBody,
  type Endpoint,
  type Failure,
  type FailureKind,
  type Granted,
  type Json,
  type Meter,
  type Provider,
  type Seen,
  type StreamReader,
} from '../provider.ts'

const TYPES: Readonly<Record<FailureKind, string>> = {
  invalid: 'invalid_request_error',
  unauthorized: 'authentication_error',
  forbidden: 'permission_error',
  not_found: 'invalid_request_error',
  too_big: 'invalid_request_error',
  wait: 'rate_limit_error',
  spent: 'insufficient_quota',
  upstream: 'server_error',
  overloaded: 'server_error',
}

export const object = (value: unknown): Json | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])
const textIn = (value: unknown): string => (typeof value === 'string' ? value : '')

/** A count as an upstream may tell it: anything absurd is as good as not told. */
export function countOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= 1e9
    ? value
    : undefined
}

/** Disjoint quantities: what was read from a cache is not input as well. */
export function tokensOf(usage: unknown): Quantities | undefined {
  const told = object(usage)
  const input = countOf(told?.input_tokens ?? told?.prompt_tokens)
  const output = countOf(told?.output_tokens ?? told?.completion_tokens ?? 0)
  if (told === undefined || input === undefined || output === undefined) return undefined
  const details = object(told.input_tokens_details) ?? object(told.prompt_tokens_details)
  const cached = Math.min(input, countOf(details?.cached_tokens) ?? 0)
  return {
    input_tokens: String(input - cached),
    cached_input_tokens: String(cached),
    output_tokens: String(output),
  }
}

/** A bound on output: a positive whole number, or nothing. */
export function boundIn(body: Json, ...names: readonly string[]): number | undefined {
  for (const name of names) {
    const value = body[name]
    if (value === undefined || value === null) continue
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1)
      throw new BadBody(`/${name}`, `${name} is a whole number from 1 on`)
    return value
  }
  return undefined
}

export function modelIn(body: Json): string {
  if (typeof body.model !== 'string' || body.model === '' || body.model.length > 256)
    throw new BadBody('/model', 'name a model')
  return body.model
}

/** How many answers are asked for at once: each may be as long as the bound. */
function choicesIn(body: Json, name = 'n'): number {
  const n = body[name] ?? 1
  if (typeof n !== 'number' || !Number.isSafeInteger(n) || n < 1 || n > 128)
    throw new BadBody(`/${name}`, `${name} is a whole number from 1 to 128`)
  return n
}

function asked(body: Json, input: unknown, bound: number | undefined, choices = 1): Asked {
  return {
    model: modelIn(body),
    stream: body.stream === true,
    input: typeof input === 'string' ? input : (JSON.stringify(input) ?? ''),
    bound: bound === undefined ? {} : { output_tokens: bound * choices },
    certain: {},
    attributes: {},
    grows: 'output_tokens',
  }
}

const withModel = (body: Json, { model }: Granted): Json => (model === undefined ? body : { ...body, model })

const chat: Meter = {
  read(body) {
    if (!Array.isArray(body.messages)) throw new BadBody('/messages', 'messages is a list')
    const bound = boundIn(body, 'max_completion_tokens', 'max_tokens')
    return asked(body, [body.messages, body.tools, body.functions], bound, choicesIn(body))
  },
  write(body, granted) {
    const name =
      body.max_tokens != null && body.max_completion_tokens == null ? 'max_tokens' : 'max_completion_tokens'
    return {
      ...withModel(body, granted),
      ...(granted.bound !== undefined && {
        [name]: Math.max(1, Math.floor(granted.bound / choicesIn(body))),
      }),
      ...(body.stream === true && {
        stream_options: { ...object(body.stream_options), include_usage: true },
      }),
    }
  },
  usage: (answer) => tokensOf(answer.usage),
  textOf: (answer) =>
    list(answer.choices)
      .map((choice) => pieceOf(object(choice)?.message))
      .join(''),
  stream: (body) => chatStream(object(body.stream_options)?.include_usage === true, 'chat.completion.chunk'),
}

const completions: Meter = {
  read(body) {
    const prompts =
      Array.isArray(body.prompt) && body.prompt.every((one) => typeof one === 'string')
        ? body.prompt.length
        : 1
    const choices = Math.max(choicesIn(body), choicesIn(body, 'best_of')) * Math.max(1, prompts)
    // The API's own default is short.
    return asked(body, body.prompt ?? '', boundIn(body, 'max_tokens') ?? 16, choices)
  },
  write(body, granted) {
    const { bound } = granted
    const { bound: whole } = completions.read(body)
    const each = boundIn(body, 'max_tokens') ?? 16
    return {
      ...withModel(body, granted),
      ...(bound !== undefined && {
        max_tokens: Math.max(1, Math.floor((each * bound) / Number(whole.output_tokens))),
      }),
      ...(body.stream === true && {
        stream_options: { ...object(body.stream_options), include_usage: true },
      }),
    }
  },
  usage: (answer) => tokensOf(answer.usage),
  textOf: (answer) =>
    list(answer.choices)
      .map((choice) => textIn(object(choice)?.text))
      .join(''),
  stream: (body) => chatStream(object(body.stream_options)?.include_usage === true, 'text_completion'),
}

/** Text, tool calls and refusals of a message or of a piece of one. */
function pieceOf(message: unknown): string {
  const { content, refusal, reasoning_content, tool_calls, function_call } = object(message) ?? {}
  const calls = [...list(tool_calls).map((call) => object(call)?.function), function_call].map(object)
  return [
    textIn(content),
    textIn(refusal),
    textIn(reasoning_content),
    ...calls.flatMap((call) => [textIn(call?.name), textIn(call?.arguments)]),
  ].join('')
}

function chatStream(isUsageWanted: boolean, kind: string): StreamReader {
  let head: Json = {}
  const open = new Set<number>()
  return {
    see(_event, data): Seen {
      if (data === '[DONE]') return { isShown: true, text: '', usage: undefined, isEnd: true }
      const chunk = parse(data)
      const choices = list(chunk?.choices).map(object)
      if (chunk?.id !== undefined) head = chunk
      for (const choice of choices) {
        const index = countOf(choice?.index) ?? 0
        if (choice?.finish_reason != null) open.delete(index)
        else open.add(index)
      }
      const usage = tokensOf(chunk?.usage)
      return {
        isShown: isUsageWanted || choices.length > 0 || usage === undefined,
        text: choices.map((choice) => textIn(choice?.text) + pieceOf(choice?.delta)).join(''),
        usage,
        isEnd: false,
      }
    },
    ending() {
      const { id = 'sluice', created = 0, model = '' } = head
      const indexes = open.size === 0 ? [0] : [...open]
      const choices = indexes.map((index) => ({
        index,
        ...(kind === 'text_completion' ? { text: '' } : { delta: {} }),
        logprobs: null,
        finish_reason: 'length',
      }))
      return `data: ${JSON.stringify({ id, object: kind, created, model, choices })}\n\ndata: [DONE]\n\n`
    },
  }
}

const responses: Meter = {
  read: (body) =>
    asked(body, [body.instructions, body.input, body.tools], boundIn(body, 'max_output_tokens')),
  write: (body, granted) => ({
    ...withModel(body, granted),
    ...(granted.bound !== undefined && { max_output_tokens: granted.bound }),
  }),
  usage: (answer) => tokensOf(answer.usage),
  textOf: (answer) =>
    list(answer.output)
      .flatMap((item) => {
        const { content, arguments: args, summary } = object(item) ?? {}
        return [
          textIn(args),
          ...[...list(content), ...list(summary)].map((part) => textIn(object(part)?.text)),
        ]
      })
      .join(''),
  stream: responseStream,
}

const ENDS = ['response.completed', 'response.incomplete', 'response.failed']

function responseStream(): StreamReader {
  let response: Json = {}
  let sequence = 0
  return {
    see(_event, data): Seen {
      const event = parse(data)
      const type = textIn(event?.type)
      sequence = Math.max(sequence, countOf(event?.sequence_number) ?? 0)
      response = object(event?.response) ?? response
      return {
        isShown: true,
        text: textIn(event?.delta),
        usage: tokensOf(object(event?.response)?.usage),
        isEnd: ENDS.includes(type),
      }
    },
    ending() {
      const data = {
        type: 'response.incomplete',
        sequence_number: sequence + 1,
        response: {
          ...response,
          status: 'incomplete',
          incomplete_details: { reason: 'max_output_tokens' },
        },
      }
      return `event: response.incomplete\ndata: ${JSON.stringify(data)}\n\n`
    },
  }
}

const embeddings: Meter = {
  read: (body) => ({ ...asked(body, body.input ?? '', undefined), stream: false, grows: undefined }),
  write: withModel,
  usage: (answer) => tokensOf(answer.usage),
  textOf: () => '',
}

export function parse(text: string): Json | undefined {
  try {
    return object(JSON.parse(text))
  } catch {
    return undefined
  }
}

const post = (name: string, path: string, meter: Meter): Endpoint => ({ name, method: 'POST', path, meter })

export const openai: Provider = {
  name: 'openai',
  endpoints: [
    post('chat.completions', '/v1/chat/completions', chat),
    post('responses', '/v1/responses', responses),
    post('completions', '/v1/completions', completions),
    post('embeddings', '/v1/embeddings', embeddings),
    { name: 'models', method: 'GET', path: '/v1/models' },
    { name: 'models', method: 'GET', path: '/v1/models/:id' },
  ],
  authorize: (key) => ({ authorization: `Bearer ${key}` }),
  failure,
  failureInStream: (failed) => `data: ${JSON.stringify(failure(failed))}\n\n`,
}

function failure({ message, kind, code, path, unblock }: Failure): Json {
  return {
    error: {
      message,
      type: TYPES[kind],
      param: path ?? null,
      // The one code by which its clients know that money is missing.
      code: kind === 'spent' ? 'insufficient_quota' : kind === 'wait' ? 'rate_limit_exceeded' : code,
      reason: code,
      ...(unblock !== undefined && { unblock }),
    },
  }
}
