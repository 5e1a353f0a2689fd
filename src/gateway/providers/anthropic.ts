/** The messages API of Anthropic. */
import type { Quantities } from '../../wire.ts'
import {
  BadBody,
  type Failure,
  type FailureKind,
  type Json,
  type Kept,
  type Meter,
  type Provider,
  type Seen,
  type StreamReader,
} from '../provider.ts'
import { asked, boundIn, countOf, list, object, parse, textIn, withModel } from './body.ts'
import { namedIn } from './names.ts'

const TYPES: Readonly<Record<FailureKind, string>> = {
  invalid: 'invalid_request_error',
  unauthorized: 'authentication_error',
  forbidden: 'permission_error',
  not_found: 'not_found_error',
  too_big: 'request_too_large',
  wait: 'rate_limit_error',
  spent: 'rate_limit_error',
  upstream: 'api_error',
  overloaded: 'overloaded_error',
}

/** Its input counts without what the cache gave or took: all of them are disjoint as they come. */
function inputOf(usage: Json | undefined): Quantities | undefined {
  const input = countOf(usage?.input_tokens)
  if (input === undefined) return undefined
  const count = (value: unknown): string => String(countOf(value) ?? 0)
  return {
    input_tokens: String(input),
    cached_input_tokens: count(usage?.cache_read_input_tokens),
    cache_write_input_tokens: count(usage?.cache_creation_input_tokens),
  }
}

function usageOf(usage: Json | undefined): Quantities | undefined {
  const input = inputOf(usage)
  const output = countOf(usage?.output_tokens)
  return input === undefined || output === undefined ? undefined : { ...input, output_tokens: String(output) }
}

/** Text, thoughts and the input of tools, of a block or of a piece of one. */
function textOfBlock(block: unknown): string {
  const { text, thinking, partial_json, input } = object(block) ?? {}
  return [
    textIn(text),
    textIn(thinking),
    textIn(partial_json),
    object(input) === undefined || Object.keys(input as object).length === 0 ? '' : JSON.stringify(input),
  ].join('')
}

const messages: Meter = {
  read(body) {
    if (!Array.isArray(body.messages)) throw new BadBody('/messages', 'messages is a list')
    const bound = boundIn(body, 'max_tokens')
    if (bound === undefined) throw new BadBody('/max_tokens', 'max_tokens is missing')
    return asked(body, [body.system, body.messages, body.tools], bound)
  },
  write(body, granted) {
    const { bound } = granted
    const thinking = object(body.thinking)
    const budget = countOf(thinking?.budget_tokens)
    return {
      ...withModel(body, granted),
      ...(bound !== undefined && { max_tokens: bound }),
      // Thoughts have to leave room for the answer, and are at least 1,024 tokens.
      ...(bound !== undefined &&
        budget !== undefined &&
        budget >= bound && {
          thinking: bound > 1_024 ? { ...thinking, budget_tokens: bound - 1 } : { type: 'disabled' },
        }),
    }
  },
  usage: (answer) => usageOf(object(answer.usage)),
  textOf: (answer) => list(answer.content).map(textOfBlock).join(''),
  stream: messageStream,
}

function messageStream(): StreamReader {
  let input: Json | undefined
  let started: Json | undefined
  let output = 0
  const open = new Set<number>()
  return {
    see(_event, data): Seen {
      const event = parse(data)
      const nothing = { isShown: true, text: '', usage: undefined, isEnd: false } as const
      const index = countOf(event?.index) ?? 0
      switch (event?.type) {
        case 'message_start': {
          started = object(event.message)
          input = object(started?.usage)
          const known = inputOf(input)
          return { ...nothing, ...(known !== undefined && { known }) }
        }
        case 'content_block_start':
          open.add(index)
          return { ...nothing, text: textOfBlock(event.content_block) }
        case 'content_block_delta':
          return { ...nothing, text: textOfBlock(event.delta) }
        case 'content_block_stop':
          open.delete(index)
          return nothing
        case 'message_delta': {
          const told = laidOver(input, object(event.usage))
          output = countOf(told.output_tokens) ?? output
          return { ...nothing, usage: usageOf(told), isEnd: object(event.delta)?.stop_reason != null }
        }
        case 'message_stop':
          return { ...nothing, isEnd: true }
        default:
          return nothing
      }
    },
    ending() {
      const stops = [...open].map((index) => frame('content_block_stop', { index }))
      const start = started === undefined ? [frame('message_start', { message: emptyMessage })] : []
      return [
        ...start,
        ...stops,
        frame('message_delta', {
          delta: { stop_reason: 'max_tokens', stop_sequence: null },
          usage: { output_tokens: output },
        }),
        frame('message_stop', {}),
      ].join('')
    },
  }
}

/** The last word on usage is cumulative; of the input it may leave out what the first said. */
function laidOver(first: Json | undefined, last: Json | undefined): Json {
  const named = Object.entries(last ?? {}).filter(([, value]) => value != null)
  return { ...first, ...Object.fromEntries(named) }
}

const emptyMessage = {
  ...{ id: 'sluice', type: 'message', role: 'assistant', model: '', content: [] },
  ...{ stop_reason: null, stop_sequence: null, usage: { input_tokens: 0, output_tokens: 0 } },
}

const frame = (type: string, data: Json): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`

/** Of messages nothing is told by an id, but files, containers and skills may be named. */
const kept: Kept = {
  names: ({ messages, system, tools, container }) => namedIn({ messages, system, tools, container }),
}

export const anthropic: Provider = {
  name: 'anthropic',
  keyHeader: 'x-api-key',
  // Models are at the same path as with OpenAI.
  isOwn: (headers) => headers['anthropic-version'] !== undefined,
  endpoints: [
    { name: 'messages', method: 'POST', path: '/v1/messages', meter: messages, kept },
    { name: 'messages.count_tokens', method: 'POST', path: '/v1/messages/count_tokens', kept },
    { name: 'models', method: 'GET', path: '/v1/models' },
    { name: 'models', method: 'GET', path: '/v1/models/:id' },
  ],
  keeps: ['messages', 'files', 'skills', 'sessions', 'agents', 'environments', 'organizations'],
  authorize: (key) => ({ 'x-api-key': key }),
  failure,
  failureInStream: (failed) => frame('error', failure(failed)),
}

function failure({ message, kind, code, path, unblock }: Failure): Json {
  return {
    type: 'error',
    error: {
      type: TYPES[kind],
      message,
      reason: code,
      ...(path !== undefined && { param: path }),
      ...(unblock !== undefined && { unblock }),
    },
  }
}
