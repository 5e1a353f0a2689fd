/** What OpenAI keeps of calls: responses and conversations, which are read on from by their ids. */
import { BadBody, type Endpoint, type Json, type Kept, UnknownId } from '../provider.ts'
import { object } from './body.ts'
import { namedIn } from './names.ts'

type Open = (id: string) => string | undefined

/** Where ids stand in responses, their items and events, in lists and in conversations. */
const IDS = new Set([
  ...['id', 'item_id', 'response_id', 'previous_response_id', 'approval_request_id'],
  ...['conversation', 'first_id', 'last_id'],
])
const INSIDE = new Set(['response', 'item', 'conversation', 'output', 'data'])

function tell(said: Json, seal: (id: string) => string): Json {
  const inner = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(inner)
    const fields = object(value)
    return fields === undefined ? value : tell(fields, seal)
  }
  return Object.fromEntries(
    Object.entries(said).map(([name, value]) => {
      if (IDS.has(name) && typeof value === 'string' && value !== '') return [name, seal(value)]
      return [name, INSIDE.has(name) ? inner(value) : value]
    }),
  )
}

function needed(id: unknown, path: string, open: Open): string {
  if (typeof id !== 'string') throw new BadBody(path, 'it is no id')
  const known = open(id)
  if (known === undefined) throw new UnknownId(path, id)
  return known
}

/**
 * An item that only names one has to be the caller's. One that says all by itself loses an id that is not: the upstream would look
 * that up, and what it says counts as well without.
 */
function itemIn(item: unknown, path: string, open: Open): unknown {
  const fields = object(item)
  if (fields === undefined) return item
  const { id, approval_request_id, ...rest } = fields
  const isReference = fields.type === 'item_reference' || (fields.type == null && fields.role == null)
  const known = isReference ? needed(id, `${path}/id`, open) : typeof id === 'string' ? open(id) : undefined
  return {
    ...rest,
    ...(known !== undefined && { id: known }),
    ...(approval_request_id != null && {
      approval_request_id: needed(approval_request_id, `${path}/approval_request_id`, open),
    }),
  }
}

function itemsIn(body: Json, name: 'input' | 'items', open: Open): Json {
  const { [name]: items } = body
  if (!Array.isArray(items)) return {}
  return { [name]: items.map((item, place) => itemIn(item, `/${name}/${place}`, open)) }
}

function conversationIn(given: unknown, open: Open): unknown {
  const fields = object(given)
  return fields === undefined
    ? needed(given, '/conversation', open)
    : { ...fields, id: needed(fields.id, '/conversation/id', open) }
}

export const keptResponses: Kept = {
  names: ({ input, tools, prompt }) =>
    namedIn({ input, tools, prompt }) ?? (object(prompt)?.id == null ? undefined : '/prompt/id'),
  ask: (body, open) => ({
    ...body,
    ...(body.previous_response_id != null && {
      previous_response_id: needed(body.previous_response_id, '/previous_response_id', open),
    }),
    ...(body.conversation != null && { conversation: conversationIn(body.conversation, open) }),
    ...itemsIn(body, 'input', open),
  }),
  tell,
}

/** Of chats nothing is told by an id, but files may be named, and sound that a model has made before. */
export const keptChat: Kept = {
  names({ messages, audio }) {
    const found = namedIn({ messages }) ?? voiceIn(audio, '/audio')
    if (found !== undefined || !Array.isArray(messages)) return found
    const heard = messages.findIndex((message) => object(object(message)?.audio)?.id != null)
    return heard === -1 ? undefined : `/messages/${heard}/audio/id`
  },
}
export const keptSpeech: Kept = { names: (body) => voiceIn(body, '') }

/** A voice of the owner's own is an object with an id; the provider's are words. */
const voiceIn = (fields: unknown, at: string): string | undefined =>
  object(object(fields)?.voice) === undefined ? undefined : `${at}/voice`

const keptItems: Kept = {
  names: ({ items }) => namedIn({ items }),
  ask: (body, open) => ({ ...body, ...itemsIn(body, 'items', open) }),
  tell,
}

const call = (name: string, method: Endpoint['method'], path: string, kept: Kept = { tell }): Endpoint => ({
  ...{ name, method, path, kept },
})
const RESPONSE = '/v1/responses/:id'
const CONVERSATION = '/v1/conversations/:id'

/** What is asked of what is kept. None of it makes anything that its provider charges for. */
export const keptEndpoints: readonly Endpoint[] = [
  call('responses', 'GET', RESPONSE),
  call('responses', 'DELETE', RESPONSE),
  call('responses', 'POST', `${RESPONSE}/cancel`),
  call('responses', 'GET', `${RESPONSE}/input_items`),
  call('conversations', 'POST', '/v1/conversations', keptItems),
  call('conversations', 'GET', CONVERSATION),
  call('conversations', 'POST', CONVERSATION),
  call('conversations', 'DELETE', CONVERSATION),
  call('conversations', 'POST', `${CONVERSATION}/items`, keptItems),
  call('conversations', 'GET', `${CONVERSATION}/items`),
  call('conversations', 'GET', `${CONVERSATION}/items/:item`),
  call('conversations', 'DELETE', `${CONVERSATION}/items/:item`),
]

/** Paths below which it keeps things for the whole of its key. */
export const KEEPS = [
  ...['responses', 'conversations', 'chat', 'videos', 'files', 'uploads', 'batches', 'vector_stores'],
  ...['containers', 'skills', 'assistants', 'threads', 'chatkit', 'evals', 'fine_tuning', 'organization'],
]
