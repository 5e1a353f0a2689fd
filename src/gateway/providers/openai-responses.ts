/** The responses API of OpenAI. */
import { BadBody, type Json, type Meter, type Seen, type StreamReader } from '../provider.ts'
import { asked, boundIn, countOf, list, object, parse, textIn, tokensOf, withModel } from './body.ts'

export const responses: Meter = {
  read(body) {
    // Nobody would be charged for what it brings: there is no call that waits for its end.
    if (body.background === true)
      throw new BadBody('/background', 'responses in the background are not served here')
    return asked(body, [body.instructions, body.input, body.tools], boundIn(body, 'max_output_tokens'))
  },
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
  const items: (Item | undefined)[] = []
  return {
    see(_event, data): Seen {
      const event = parse(data)
      const type = textIn(event?.type)
      sequence = Math.max(sequence, countOf(event?.sequence_number) ?? 0)
      response = object(event?.response) ?? response
      if (event !== undefined) collect(items, type, event)
      return {
        isShown: true,
        text: textIn(event?.delta),
        usage: tokensOf(object(event?.response)?.usage),
        isEnd: ENDS.includes(type),
      }
    },
    ending() {
      const frames: string[] = []
      const tell = (type: string, data: Json): void =>
        void frames.push(
          `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: ++sequence, ...data })}\n\n`,
        )
      const output = items.flatMap((item, output_index) => {
        if (item === undefined) return []
        if (item.isDone) return [item.value]
        const cut = { ...item.value, ...partsOf(item), status: 'incomplete' }
        const at = { item_id: item.value.id, output_index }
        for (const [content_index, part] of item.parts.entries()) {
          if (part === undefined || part.isDone) continue
          const { text } = part
          if (part.value.type === 'output_text')
            tell('response.output_text.done', { ...at, content_index, text, logprobs: [] })
          tell('response.content_part.done', { ...at, content_index, part: partOf(part) })
        }
        tell('response.output_item.done', { output_index, item: cut })
        return [cut]
      })
      const incomplete_details = { reason: 'max_output_tokens' }
      tell('response.incomplete', {
        response: { ...response, status: 'incomplete', incomplete_details, output },
      })
      return frames.join('')
    },
  }
}

/** What an answer has so far, for the end that says it again. */
interface Item {
  value: Json
  isDone: boolean
  /** Of a call: its arguments. */
  text: string
  readonly parts: (Part | undefined)[]
}
interface Part {
  value: Json
  isDone: boolean
  text: string
}
/** An answer has few items and parts; whoever names a later one is not believed. */
const MOST = 1_000

function collect(items: (Item | undefined)[], type: string, event: Json): void {
  const place = countOf(event.output_index)
  if (place === undefined || place >= MOST) return
  const item = object(event.item)
  if (item !== undefined) {
    items[place] = { value: item, isDone: type.endsWith('.done'), text: '', parts: [] }
    return
  }
  const known = items[place]
  if (known === undefined || known.isDone) return
  if (type === 'response.function_call_arguments.delta') known.text += textIn(event.delta)
  const index = countOf(event.content_index)
  if (index === undefined || index >= MOST) return
  const value = object(event.part)
  const part = known.parts[index]
  if (value !== undefined)
    known.parts[index] = { value, isDone: type.endsWith('.done'), text: part?.text ?? '' }
  else if (part !== undefined && !part.isDone) part.text += textIn(event.delta)
}

const partOf = ({ value, isDone, text }: Part): Json =>
  isDone ? value : { ...value, [value.type === 'refusal' ? 'refusal' : 'text']: text }

function partsOf({ value, text, parts }: Item): Json {
  return {
    ...(text !== '' && { arguments: text }),
    ...(Array.isArray(value.content) && {
      content: parts.flatMap((part) => (part === undefined ? [] : [partOf(part)])),
    }),
  }
}
