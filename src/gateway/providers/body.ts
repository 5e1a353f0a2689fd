/** What the providers share: reading what callers and upstreams send, of which nothing is taken for granted. */
import type { Quantities } from '../../wire.ts'
import { type Asked, BadBody, type Granted, type Json } from '../provider.ts'

export const object = (value: unknown): Json | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined
export const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])
export const textIn = (value: unknown): string => (typeof value === 'string' ? value : '')

/** A count as an upstream may tell it: anything absurd is as good as not told. */
export function countOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= MOST_TOKENS
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

/** No answer is as long. */
const MOST_TOKENS = 1e9

/** A bound on output: a positive whole number, or nothing. */
export function boundIn(body: Json, ...names: readonly string[]): number | undefined {
  for (const name of names) {
    const value = body[name]
    if (value === undefined || value === null) continue
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1 || value > MOST_TOKENS)
      throw new BadBody(`/${name}`, `${name} is a whole number from 1 to ${MOST_TOKENS}`)
    return value
  }
  return undefined
}

export function modelIn(body: Json): string {
  if (typeof body.model !== 'string' || !/^[\x20-\x7e]{1,256}$/.test(body.model))
    throw new BadBody('/model', 'name a model')
  return body.model
}

/** How many answers are asked for at once: each may be as long as the bound. */
export function choicesIn(body: Json, name = 'n'): number {
  const n = body[name] ?? 1
  if (typeof n !== 'number' || !Number.isSafeInteger(n) || n < 1 || n > 128)
    throw new BadBody(`/${name}`, `${name} is a whole number from 1 to 128`)
  return n
}

/**
 * What is attached to a message as data, which no tokenizer counts: providers charge pictures and sound by their size, mostly below
 * this. What they tell replaces it.
 */
const ATTACHED = ' data'.repeat(1_000)
const isAttached = (name: string, value: string): boolean =>
  value.length > 1_000 && (/^data:[^,]{0,200};base64,/.test(value) || name === 'data' || name === 'file_data')

/** Text that is read, with what is attached to it counted as if it were a page of text. */
export const inputText = (input: unknown): string =>
  typeof input === 'string'
    ? input
    : (JSON.stringify(input, (name, value: unknown) =>
        typeof value === 'string' && isAttached(name, value) ? ATTACHED : value,
      ) ?? '')

/** A call that is answered with text. */
export function asked(body: Json, input: unknown, bound: number | undefined, choices = 1): Asked {
  return {
    model: modelIn(body),
    stream: body.stream === true,
    input: inputText(input),
    bound: bound === undefined ? {} : { output_tokens: bound * choices },
    choices,
    certain: {},
    attributes: {},
    grows: 'output_tokens',
  }
}

export const withModel = (body: Json, { model }: Granted): Json =>
  model === undefined ? body : { ...body, model }

export function parse(text: string): Json | undefined {
  try {
    return object(JSON.parse(text))
  } catch {
    return undefined
  }
}
