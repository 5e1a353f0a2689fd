/** Videos as the OpenAI API has them: jobs that take their time. What they bring is one short real film, whatever was asked for. */
import type OpenAI from 'openai'
import { type Body, Refusal } from './texts.ts'

type Video = OpenAI.Videos.Video

export interface VideosOptions {
  readonly models: readonly string[]
  /** How long a second of film takes to render, in milliseconds. */
  readonly renderMs: number
  readonly now: () => number
  readonly id: (prefix: string) => string
  readonly film: Buffer
}

export interface Videos {
  create(body: Body): Video
  retrieve(id: string): Video
  list(query: URLSearchParams): object
  remove(id: string): object
  remix(id: string, body: Body): Video
  /** The film, when it is there. */
  content(id: string): Buffer
  /** Forgets a job, as an upstream may. */
  forget(id: string): void
}

interface Job {
  readonly video: Video
  readonly startedAt: number
  readonly willFail: boolean
}

/** A prompt with this in it fails half-way, so that failure can be tried out. */
export const FAILS = '[fail]'
const SECONDS = ['4', '8', '12']
const SIZES = ['720x1280', '1280x720', '1024x1792', '1792x1024']
/** The share of its time that a job waits in a queue. */
const QUEUED = 0.1
const FAILS_AT = 0.5
const KEPT_MS = 24 * 60 * 60 * 1_000
const KEPT_AT_MOST = 1_000

export function createVideos({ models, renderMs, now, id: newId, film }: VideosOptions): Videos {
  const jobs = new Map<string, Job>()

  function found(id: string): Job {
    const job = jobs.get(id)
    if (job === undefined) throw new Refusal(404, `Video with id '${id}' not found.`, null, 'not_found')
    return job
  }

  function begin(body: Body, remixed: Video | null): Video {
    const {
      prompt,
      model = models[0],
      seconds = remixed?.seconds ?? '4',
      size = remixed?.size ?? SIZES[0],
    } = body
    if (typeof prompt !== 'string' || prompt === '')
      throw new Refusal(400, 'prompt is missing', 'prompt', 'missing_required_parameter')
    if (!models.includes(String(model)))
      throw new Refusal(
        404,
        `The model ${JSON.stringify(model)} does not exist here`,
        'model',
        'model_not_found',
      )
    if (!SECONDS.includes(String(seconds)))
      throw new Refusal(400, `seconds is one of ${SECONDS.join(', ')}`, 'seconds', 'invalid_value')
    if (!SIZES.includes(String(size)))
      throw new Refusal(400, `size is one of ${SIZES.join(', ')}`, 'size', 'invalid_value')
    const startedAt = now()
    const video: Video = {
      id: newId('video'),
      object: 'video',
      created_at: Math.floor(startedAt / 1_000),
      completed_at: null,
      expires_at: null,
      error: null,
      model: String(model),
      progress: 0,
      prompt,
      remixed_from_video_id: remixed?.id ?? null,
      seconds: String(seconds),
      size: size as OpenAI.Videos.VideoSize,
      status: 'queued',
    }
    jobs.set(video.id, { video, startedAt, willFail: prompt.includes(FAILS) })
    for (const oldest of jobs.keys()) {
      if (jobs.size <= KEPT_AT_MOST) break
      jobs.delete(oldest)
    }
    return video
  }

  /** How far it is follows from the time alone: nothing runs between two questions. */
  function view({ video, startedAt, willFail }: Job): Video {
    const takesMs = Number(video.seconds) * renderMs
    const done = Math.min(1, takesMs === 0 ? 1 : (now() - startedAt) / takesMs)
    if (willFail && done >= FAILS_AT) {
      const error = { code: 'moderation_blocked', message: 'The request was blocked, as its prompt asked.' }
      return { ...video, status: 'failed', progress: FAILS_AT * 100, error }
    }
    if (done < QUEUED) return video
    if (done < 1) return { ...video, status: 'in_progress', progress: Math.floor(done * 100) }
    const completedAt = startedAt + takesMs
    return {
      ...video,
      status: 'completed',
      progress: 100,
      completed_at: Math.floor(completedAt / 1_000),
      expires_at: Math.floor((completedAt + KEPT_MS) / 1_000),
    }
  }

  return {
    create: (body) => begin(body, null),
    retrieve: (id) => view(found(id)),
    list(query) {
      const all = [...jobs.values()].map(view)
      if (query.get('order') !== 'asc') all.reverse()
      const after = query.get('after')
      const from = after === null ? 0 : all.findIndex(({ id }) => id === after) + 1
      const data = all.slice(from, from + Math.min(100, Math.max(1, Number(query.get('limit') ?? 20) || 20)))
      const ends = { first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null }
      return { object: 'list', data, ...ends, has_more: from + data.length < all.length }
    },
    remove(id) {
      found(id)
      jobs.delete(id)
      return { id, object: 'video.deleted', deleted: true } satisfies OpenAI.Videos.VideoDeleteResponse
    },
    remix: (id, body) => begin({ ...body, model: found(id).video.model }, found(id).video),
    content(id) {
      const { status } = view(found(id))
      if (status === 'completed') return film
      throw new Refusal(404, `Video is not ready yet: its status is ${status}.`, null, 'not_ready')
    },
    forget: (id) => void jobs.delete(id),
  }
}
