/** An upstream with OpenAI's videos, for tests: what becomes of each says the test. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface ApiVideo {
  id: string
  object: 'video'
  status: string
  model: string
  seconds: string
  size: string
  progress: number
  prompt: string
  created_at: number
  completed_at: number | null
  expires_at: null
  error: { code: string; message: string } | null
  remixed_from_video_id: string | null
}

export type VideosApi = Awaited<ReturnType<typeof startVideosApi>>

export async function startVideosApi() {
  const videos = new Map<string, ApiVideo>()
  const characters = new Map<string, object>()
  /** What the last order said, by field. */
  let ordered: Record<string, unknown> = {}
  /** Beyond what a connection keeps by itself. */
  const film = Buffer.alloc(3_000_001, 'film')
  const seen = { creates: 0, looks: 0, deletes: 0, files: 0 }
  let before: ((request: IncomingMessage, response: ServerResponse) => Promise<boolean> | boolean) | undefined

  function make(fields: Record<string, unknown>, from?: ApiVideo): ApiVideo {
    seen.creates += 1
    const video: ApiVideo = {
      id: `upstream_video_${seen.creates}_${Math.random().toString(16).slice(2)}`,
      object: 'video',
      status: 'queued',
      model: String(from?.model ?? fields.model ?? 'sora-2'),
      // What goes on behind a video is told with it.
      seconds:
        from !== undefined && fields.seconds !== undefined
          ? String(Number(from.seconds) + Number(fields.seconds))
          : String(from?.seconds ?? fields.seconds ?? '4'),
      size: String(from?.size ?? fields.size ?? '720x1280'),
      progress: 0,
      prompt: String(fields.prompt),
      created_at: Math.floor(Date.now() / 1_000),
      completed_at: null,
      expires_at: null,
      error: null,
      remixed_from_video_id: from?.id ?? null,
    }
    videos.set(video.id, video)
    return video
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    assert.equal(request.headers.authorization, 'Bearer upstream-secret')
    const url = new URL(request.url ?? '/', 'http://upstream')
    const [, , , id = '', what = ''] = url.pathname.split('/')
    const tell = (status: number, json: object): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(json))
    }
    if (await before?.(request, response)) return
    if (request.method === 'GET' && id === 'characters') {
      const character = characters.get(what)
      return character === undefined ? tell(404, { error: { message: `no ${what}` } }) : tell(200, character)
    }
    const isNamed = id === 'edits' || id === 'extensions'
    if (request.method === 'POST' && (id === '' || id === 'characters' || what === 'remix' || isNamed)) {
      const body = new Request('http://upstream', {
        method: 'POST',
        headers: { 'content-type': String(request.headers['content-type']) },
        body: request,
        duplex: 'half',
      } as unknown as RequestInit)
      const isForm = /^multipart/.test(String(request.headers['content-type']))
      const fields: Record<string, unknown> = isForm
        ? Object.fromEntries(await body.formData())
        : ((await body.json()) as Record<string, unknown>)
      ordered = fields
      if (id === 'characters') {
        assert.ok(fields.video instanceof Blob)
        const character = { id: `char_${characters.size}`, created_at: 1, name: fields.name }
        characters.set(character.id, character)
        return tell(200, character)
      }
      if (fields.input_reference instanceof Blob) seen.files += 1
      if (fields.prompt === undefined)
        return tell(400, { error: { message: 'prompt is missing', code: 'missing', param: 'prompt' } })
      const named = fields['video[id]'] ?? (fields.video as { id?: unknown } | undefined)?.id
      const from = videos.get(isNamed ? String(named) : id)
      if (isNamed && from === undefined) return tell(400, { error: { message: 'no such video' } })
      return tell(200, make(fields, from))
    }
    const video = videos.get(id)
    if (video === undefined) return tell(404, { error: { message: `no video ${id}`, code: 'not_found' } })
    if (request.method === 'DELETE') {
      seen.deletes += 1
      videos.delete(id)
      return tell(200, { id, object: 'video.deleted', deleted: true })
    }
    if (what === '') {
      seen.looks += 1
      return tell(200, video)
    }
    if (video.status !== 'completed')
      return tell(400, { error: { message: `${id} is not ready`, code: 'x' } })
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
    if (first === undefined) {
      response.writeHead(200, { 'content-type': 'video/mp4', 'content-length': film.length }).end(film)
    } else {
      const part = film.subarray(Number(first), Number(last) + 1)
      response
        .writeHead(206, {
          'content-type': 'video/mp4',
          'content-range': `bytes ${first}-${last}/${film.length}`,
          'content-length': part.length,
        })
        .end(part)
    }
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      console.error(error)
      response.destroy()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    film,
    seen,
    /** The one that was made last. */
    newest(): ApiVideo {
      const video = [...videos.values()].at(-1)
      assert.ok(video !== undefined)
      return video
    },
    get ordered() {
      return ordered
    },
    has: (id: string): boolean => videos.has(id),
    forget: (id: string): boolean => videos.delete(id),
    end(id: string, how: Partial<ApiVideo> = {}): void {
      const video = videos.get(id)
      assert.ok(video !== undefined)
      Object.assign(video, {
        status: 'completed',
        progress: 100,
        completed_at: video.created_at + 60,
        ...how,
      })
    },
    /** Called before each answer; true where it has answered itself. */
    meanwhile(what: typeof before): void {
      before = what
    },
    close(): void {
      server.closeAllConnections()
      server.close()
    },
  }
}
