/** OpenAI's videos: ordered by one call, rendered for minutes, then downloaded. */
import { BadBody, type Endpoint, type JobAsked, type JobCall, type Jobs, type Json } from '../provider.ts'

/** The API's own defaults. */
const USUAL = { model: 'sora-2', seconds: '4', size: '720x1280' }
/** An hour is longer than anything that is rendered in one piece. */
const MAX_SECONDS = 3_600
const FAILED = ['failed', 'cancelled', 'canceled', 'expired', 'rejected', 'deleted']
const UPSTREAM_ID = /^[\w.~-]{1,200}$/
/** Shorter ones are words that may stand in any sentence. */
const TELLING_ID = 8

const call = (method: Endpoint['method'], path: string, job: JobCall): Endpoint => ({
  name: 'videos',
  method,
  path,
  job,
})

export const videoEndpoints: readonly Endpoint[] = [
  call('POST', '/v1/videos', 'create'),
  call('GET', '/v1/videos', 'list'),
  call('POST', '/v1/videos/:id/remix', 'remix'),
  call('GET', '/v1/videos/:id/content', 'content'),
  call('GET', '/v1/videos/:id', 'look'),
  call('DELETE', '/v1/videos/:id', 'remove'),
]

export const videos: Jobs = {
  path: '/v1/videos',
  prefix: 'video_',
  read(fields, source) {
    // A remix is as long and as large as what it is made from.
    const from = source ?? fields
    return {
      model: wordOf(from.model, 'model'),
      quantities: { seconds: secondsOf(from.seconds) },
      attributes: pictureOf(sizeOf(from.size)),
    }
  },
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
