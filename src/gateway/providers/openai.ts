/** The OpenAI API, whose clients are the most there are. */
import {
  BadBody,
  type Endpoint,
  type Failure,
  type FailureKind,
  type Json,
  type Meter,
  type Provider,
  type Seen,
  type StreamReader,
} from '../provider.ts'
import {
  asked,
  boundIn,
  choicesIn,
  countOf,
  list,
  modelIn,
  object,
  parse,
  textIn,
  tokensOf,
  withModel,
} from './body.ts'
import { KEEPS, keptChat, keptEndpoints, keptResponses, keptSpeech } from './openai-kept.ts'
import { imageEdits, images, speech, transcriptions, translations } from './openai-media.ts'
import { responses } from './openai-responses.ts'
import { videoEndpoints, videos } from './openai-videos.ts'

export { boundIn, countOf, modelIn, object, parse, tokensOf }

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
    // A list of numbers is one prompt, in tokens.
    const prompts =
      Array.isArray(body.prompt) && body.prompt.every((one) => typeof one !== 'number')
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

/** Whoever names a later one is not believed. */
const MOST_CHOICES = 1_000

function chatStream(isUsageWanted: boolean, kind: string): StreamReader {
  let head: Json = {}
  const open = new Set<number>()
  let hasFinished = false
  return {
    see(_event, data): Seen {
      if (data === '[DONE]')
        return { isShown: true, text: '', usage: undefined, isEnd: true, isFinished: true }
      const chunk = parse(data)
      const choices = list(chunk?.choices).map(object)
      if (chunk?.id !== undefined) head = chunk
      for (const choice of choices) {
        const index = countOf(choice?.index) ?? 0
        if (choice?.finish_reason != null) {
          hasFinished = true
          open.delete(index)
        } else if (index < MOST_CHOICES) open.add(index)
      }
      const usage = tokensOf(chunk?.usage)
      // Nonsense in its place is hidden as well: nobody asked for a chunk without choices.
      const isHidden = object(chunk?.usage) !== undefined && !isUsageWanted
      return {
        isShown: !isHidden || choices.length > 0,
        // Some upstreams lay their usage into chunks of text.
        ...(isHidden && {
          instead: `data: ${JSON.stringify({ ...chunk, usage: undefined })}\n\n`,
        }),
        text: choices.map((choice) => textIn(choice?.text) + pieceOf(choice?.delta)).join(''),
        usage,
        isEnd: usage !== undefined && choices.length === 0,
        isFinished: hasFinished && open.size === 0,
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

const embeddings: Meter = {
  read: (body) => ({ ...asked(body, body.input ?? '', undefined), stream: false, grows: undefined }),
  write: withModel,
  usage(answer) {
    const input = countOf(object(answer.usage)?.prompt_tokens)
    return input === undefined ? undefined : { input_tokens: String(input) }
  },
}

const post = (
  name: string,
  path: string,
  meter: Meter,
  { takes = 'json', ...more }: Pick<Endpoint, 'takes' | 'kept'> = {},
): Endpoint => ({ ...{ name, method: 'POST', path, meter, takes }, ...more })

export const openai: Provider = {
  name: 'openai',
  endpoints: [
    post('chat.completions', '/v1/chat/completions', chat, { kept: keptChat }),
    post('responses', '/v1/responses', responses, { kept: keptResponses }),
    ...keptEndpoints,
    post('completions', '/v1/completions', completions),
    post('embeddings', '/v1/embeddings', embeddings),
    post('images.generations', '/v1/images/generations', images),
    post('images.edits', '/v1/images/edits', imageEdits, { takes: 'form' }),
    post('audio.speech', '/v1/audio/speech', speech, { kept: keptSpeech }),
    post('audio.transcriptions', '/v1/audio/transcriptions', transcriptions, { takes: 'form' }),
    post('audio.translations', '/v1/audio/translations', translations, { takes: 'form' }),
    { name: 'moderations', method: 'POST', path: '/v1/moderations' },
    { name: 'models', method: 'GET', path: '/v1/models' },
    { name: 'models', method: 'GET', path: '/v1/models/:id' },
    ...videoEndpoints,
  ],
  jobs: videos,
  keeps: KEEPS,
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
