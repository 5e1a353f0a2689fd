/** OpenAI's videos: ordered by one call, rendered for minutes, then downloaded. */
import {
  BadBody,
  type Endpoint,
  type JobAsked,
  type JobCall,
  type Jobs,
  type Json,
  type Kept,
  UnknownId,
} from '../provider.ts'
import { list, object } from './body.ts'
import { namedIn } from './names.ts'

/** The API's own defaults. */
const USUAL = { model: 'sora-2', seconds: '4', size: '720x1280' }
/** An hour is longer than anything that is rendered in one piece. */
const MAX_SECONDS = 3_600
const FAILED = ['failed', 'cancelled', 'canceled', 'expired', 'rejected', 'deleted']
const UPSTREAM_ID = /^[\w.~-]{1,200}$/
/** Shorter ones are words that may stand in any sentence. */
const TELLING_ID = 8

/** Of a form the fields `a: [{ b }]` are `a[][b]`. */
const CHARACTER = /^characters\[\d*\](?:\[id\])?$/

/** A video is made with files and characters that are stored already. */
const kept: Kept = {
  names({ input_reference, ...fields }) {
    const named = Object.keys(fields).find((name) => name.endsWith('[file_id]'))
    return named === undefined ? namedIn({ input_reference }) : `/${named}`
  },
  ask(fields, open) {
    const known = (id: unknown, path: string): string => {
      const found = typeof id === 'string' ? open(id) : undefined
      if (found === undefined) throw new UnknownId(path, String(id))
      return found
    }
    return Object.fromEntries(
      Object.entries(fields).map(([name, value]) => {
        const path = `/${name}`
        if (name === 'characters')
          return [name, list(value).map((one) => ({ ...object(one), id: known(object(one)?.id, path) }))]
        if (!CHARACTER.test(name)) return [name, value]
        return [name, Array.isArray(value) ? value.map((id) => known(id, path)) : known(value, path)]
      }),
    )
  },
}
/** What is told of a character. */
const keptCharacters: Kept = {
  tell: (said, seal) => ({ ...said, ...(typeof said.id === 'string' && { id: seal(said.id) }) }),
}

const call = (method: Endpoint['method'], path: string, job: JobCall): Endpoint => ({
  ...{ name: 'videos', method, path, job },
  ...(method === 'POST' && { kept }),
})

export const videoEndpoints: readonly Endpoint[] = [
  call('POST', '/v1/videos', 'create'),
  call('GET', '/v1/videos', 'list'),
  call('POST', '/v1/videos/:id/remix', 'remix'),
  call('POST', '/v1/videos/edits', 'edit'),
  call('POST', '/v1/videos/extensions', 'extend'),
  { name: 'videos.characters', method: 'POST', path: '/v1/videos/characters', kept: keptCharacters },
  { name: 'videos.characters', method: 'GET', path: '/v1/videos/characters/:id', kept: keptCharacters },
  call('GET', '/v1/videos/:id/content', 'content'),
  call('GET', '/v1/videos/:id', 'look'),
  call('DELETE', '/v1/videos/:id', 'remove'),
]

export const videos: Jobs = {
  path: '/v1/videos',
  prefix: 'video_',
  read(fields, source, order) {
    // What is made from another is as long and as large as that; what goes on behind it says how long it goes on.
    const from = source ?? fields
    const isExtension = order === 'extend'
    return {
      model: wordOf(from.model, 'model'),
      quantities: { seconds: secondsOf(isExtension ? (fields.seconds ?? '') : from.seconds) },
      attributes: pictureOf(sizeOf(from.size)),
      ...(isExtension && { isToldInAll: true }),
    }
  },
  sourceIn(fields) {
    const named = Object.keys(fields).filter((name) => name === 'video' || name.startsWith('video['))
    const [name] = named
    const id = name === 'video[id]' ? fields[name] : object(fields.video)?.id
    if (named.length === 1 && typeof id === 'string') return id
    // How long a film is that somebody brings is known when it has been rendered: nothing could be held for it.
    throw new BadBody('/video', 'name a video that was made here, by its id')
  },
  withSource: (fields, id) =>
    'video[id]' in fields ? { ...fields, 'video[id]': id } : { ...fields, video: { id } },
  see(answer) {
    const { id, status, object, seconds, size, error } = answer
    if (object !== 'video' || typeof id !== 'string' || !UPSTREAM_ID.test(id)) return undefined
    if (typeof status !== 'string') return undefined
    const made = secondsIn(seconds)
    const picture = typeof size === 'string' && SIZE.test(size) ? pictureOf(size) : {}
    return {
      id,
      state: status === 'completed' ? 'done' : FAILED.includes(status) ? 'failed' : 'runs',
      quantities: made === undefined ? {} : { seconds: made },
      attributes: picture,
      reason: codeOf(error) ?? status,
    }
  },
  show(answer, { upstream, id, source }) {
    const { remixed_from_video_id: from } = answer
    return {
      ...withoutId(answer, upstream, id),
      ...(answer.object === 'video' && { id }),
      ...(from !== undefined && { remixed_from_video_id: from === null ? null : (source ?? null) }),
    }
  },
  list: (jobs, hasMore) => ({
    object: 'list',
    data: jobs,
    first_id: jobs[0]?.id ?? null,
    last_id: jobs.at(-1)?.id ?? null,
    has_more: hasMore,
  }),
  removed: (id) => ({ id, object: 'video.deleted', deleted: true }),
}

const SIZE = /^([1-9]\d{1,4})x([1-9]\d{1,4})$/
const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

function wordOf(value: unknown, name: 'model'): string {
  const word = value ?? USUAL[name]
  if (typeof word === 'string' && /^[\x21-\x7e]{1,128}$/.test(word)) return word
  throw new BadBody(`/${name}`, `name a ${name}`)
}

function sizeOf(value: unknown): string {
  const size = value ?? USUAL.size
  if (typeof size === 'string' && SIZE.test(size)) return size
  throw new BadBody('/size', 'a size is width and height: 1280x720')
}

function secondsOf(value: unknown): string {
  const seconds = secondsIn(value ?? USUAL.seconds)
  if (seconds === undefined)
    throw new BadBody('/seconds', `seconds are a whole number from 1 to ${MAX_SECONDS}`)
  return seconds
}

/** Anything absurd is as good as not told. */
function secondsIn(value: unknown): string | undefined {
  const text = typeof value === 'number' ? String(value) : textOf(value)
  return /^[1-9]\d{0,3}$/.test(text) && Number(text) <= MAX_SECONDS ? text : undefined
}

/** A rate card may ask for the size, or for its shorter side as people call it: 720p. */
function pictureOf(size: string): JobAsked['attributes'] {
  const [, width, height] = SIZE.exec(size) ?? []
  return { size, resolution: `${Math.min(Number(width), Number(height))}p` }
}

function codeOf(error: unknown): string | undefined {
  const code = typeof error === 'object' && error !== null ? (error as Json).code : undefined
  return typeof code === 'string' && code.length <= 128 ? code : undefined
}

/** Sentences of an upstream, too, name the job as the upstream knows it. */
function withoutId(answer: Json, upstream: string, id: string): Json {
  return upstream.length < TELLING_ID
    ? answer
    : (JSON.parse(JSON.stringify(answer).replaceAll(upstream, id)) as Json)
}
