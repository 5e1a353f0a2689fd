/** Pictures and sound of the OpenAI API: charged by the piece, by length or by tokens, as the policy prices them. */
import type { Quantities, QuantitiesIn } from '../../wire.ts'
import { type Asked, BadBody, type Json, type Meter, type StreamReader } from '../provider.ts'
import { roughTokens } from '../tokens.ts'
import { countOf, inputText, list, modelIn, object, parse, textIn, withModel } from './body.ts'

/** Fields of a form are text. */
function numberIn(body: Json, name: string, most: number): number {
  const value = body[name] ?? 1
  const number = typeof value === 'string' && /^[0-9]{1,6}$/.test(value) ? Number(value) : value
  if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < 1 || number > most)
    throw new BadBody(`/${name}`, `${name} is a whole number from 1 to ${most}`)
  return number
}

/** What a rate card may ask: a word of the body, or what the API takes where it says nothing. */
function attribute(body: Json, name: string, usual: string): Readonly<Record<string, string>> {
  const value = body[name] ?? usual
  if (typeof value !== 'string' || !/^[\x21-\x7e]{1,64}$/.test(value))
    throw new BadBody(`/${name}`, `${name} is a word`)
  return { [name]: value }
}

const asks = (body: Json, more: Partial<Asked>): Asked => ({
  ...{ model: modelIn(body), input: undefined, bound: {}, certain: {}, attributes: {}, grows: undefined },
  stream: body.stream === true || body.stream === 'true',
  ...more,
})

/** What is read of text, of pictures and of sound is priced apart. */
function tokensByKind(usage: Json | undefined): Quantities | undefined {
  const input = countOf(usage?.input_tokens)
  const output = countOf(usage?.output_tokens)
  if (input === undefined || output === undefined) return undefined
  const details = object(usage?.input_tokens_details) ?? object(usage?.input_token_details)
  const image = Math.min(input, countOf(details?.image_tokens) ?? 0)
  const audio = Math.min(input - image, countOf(details?.audio_tokens) ?? 0)
  return {
    input_tokens: String(input - image - audio),
    ...(image > 0 && { image_input_tokens: String(image) }),
    ...(audio > 0 && { audio_input_tokens: String(audio) }),
    output_tokens: String(output),
  }
}

/** Tokens of the largest picture, where they are what is priced. */
const PICTURE_TOKENS: Readonly<Record<string, number>> = { low: 500, medium: 2_000 }
const MOST_PICTURE_TOKENS = 7_000

function picture(body: Json): Asked {
  const images = numberIn(body, 'n', 10)
  const each = PICTURE_TOKENS[textIn(body.quality)] ?? MOST_PICTURE_TOKENS
  return asks(body, {
    certain: { images },
    guessed: { input_tokens: roughTokens(inputText(body.prompt ?? '')), output_tokens: images * each },
    attributes: { ...attribute(body, 'size', 'auto'), ...attribute(body, 'quality', 'auto') },
  })
}

export const images: Meter = {
  read: picture,
  write: withModel,
  usage(answer) {
    const made = list(answer.data).length
    return { images: String(made), ...tokensByKind(object(answer.usage)) }
  },
  stream: () =>
    eventStream((event) => {
      // Each picture of a stream has an end of its own.
      const isEnd = /^image_(generation|edit)\.completed$/.test(textIn(event.type))
      return isEnd ? { images: '1', ...tokensByKind(object(event.usage)) } : undefined
    }),
}

export const imageEdits: Meter = images

export const speech: Meter = {
  read(body) {
    if (typeof body.input !== 'string') throw new BadBody('/input', 'input is text')
    return asks(body, {
      stream: body.stream_format === 'sse',
      certain: { characters: [...body.input].length },
    })
  },
  write: withModel,
  usage: () => undefined,
  answersAny: true,
  stream: () => eventStream((event) => tokensByKind(object(event.usage))),
}

/** MP3 of 64 kbit/s; what is smaller for its length is longer than was held. */
const BYTES_A_SECOND = 8_000
/** As models that charge sound by tokens count it. */
const AUDIO_TOKENS_A_SECOND = 10
/** Quick talk. */
const TEXT_TOKENS_A_SECOND = 5

function listening(body: Json): Asked {
  const size = countOf(object(body.file)?.size)
  if (size === undefined) throw new BadBody('/file', 'file is missing')
  const seconds = Math.max(1, Math.ceil(size / BYTES_A_SECOND))
  const guessed: QuantitiesIn = {
    seconds,
    audio_input_tokens: seconds * AUDIO_TOKENS_A_SECOND,
    input_tokens: roughTokens(inputText(body.prompt ?? '')),
    output_tokens: seconds * TEXT_TOKENS_A_SECOND,
  }
  return asks(body, { guessed })
}

function heard(answer: Json): Quantities | undefined {
  const usage = object(answer.usage)
  const seconds = secondsOf(usage?.seconds) ?? secondsOf(answer.duration)
  if (usage?.type !== 'tokens' && seconds !== undefined) return { seconds }
  return tokensByKind(usage)
}

function secondsOf(value: unknown): string | undefined {
  const isTold = typeof value === 'number' && value >= 0 && value <= 1e6
  return isTold ? String(Math.ceil(value * 1_000) / 1_000) : undefined
}

export const transcriptions: Meter = {
  read: listening,
  write: withModel,
  usage: heard,
  // Text and subtitles tell nothing of what was used.
  answersAny: true,
  stream: () => eventStream(heard),
}

export const translations: Meter = transcriptions

/** Streams of which only the last word on usage matters. What they add up to is told with each. */
function eventStream(usageIn: (event: Json) => Quantities | undefined): StreamReader {
  let sum: Quantities | undefined
  return {
    see(_name, data) {
      const event = data === '[DONE]' ? undefined : parse(data)
      const told = event === undefined ? undefined : usageIn(event)
      if (told !== undefined) sum = added(sum, told)
      return {
        isShown: true,
        text: '',
        usage: told === undefined ? undefined : sum,
        // What is held is all that it can use: it is never ended for want of more.
        isEnd: true,
      }
    },
    ending: () => '',
  }
}

function added(sum: Quantities = {}, more: Quantities): Quantities {
  const all: Record<string, string> = { ...sum }
  for (const [name, amount] of Object.entries(more))
    all[name] = String(Math.round((Number(all[name] ?? 0) + Number(amount)) * 1e6) / 1e6)
  return all
}
