/**
 * A server with the OpenAI wire format that really generates: texts from an n-gram model of a novel, embeddings by hashing, and
 * videos as jobs. For trying the gateway out, and for its tests and measurements: it costs nothing and answers when one wants.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type OpenAI from 'openai'
import { type Model, train } from './ngram.ts'
import {
  type Answer,
  type Body,
  chat,
  completions,
  embeddings,
  type Handler,
  Refusal,
  responses,
  type Setting,
} from './texts.ts'
import { createVideos, type Videos } from './videos.ts'

export interface UpstreamOptions {
  readonly host?: string
  /** 0 takes any free port. */
  readonly port?: number
  /** Of each answer; 0 is as fast as may be. */
  readonly tokensPerSecond?: number
  /** How long a second of film takes to render, in milliseconds. */
  readonly renderMs?: number
  readonly seed?: number
  /** Texts end at their bound alone, or never. */
  readonly isEndless?: boolean
  /** False: no answer says what it used. */
  readonly isUsageTold?: boolean
  /** The one that callers have to bring; absent, any will do. */
  readonly key?: string
  readonly now?: () => number
}

export interface Upstream {
  /** `http://127.0.0.1:9000` */
  readonly url: string
  readonly server: Server
  readonly videos: Videos
  close(): Promise<void>
}

export const MODELS = {
  large: 'moby-1',
  small: 'moby-1-mini',
  embedding: 'moby-embed-1',
  video: 'moby-film-1',
} as const

const MAX_BODY_BYTES = 16 * 1024 * 1024
const BOOK = join(import.meta.dirname, 'moby-dick.txt')
const FILM = join(import.meta.dirname, 'clip.mp4')
const HANDLERS: Readonly<Record<string, Handler>> = {
  '/v1/chat/completions': chat,
  '/v1/completions': completions,
  '/v1/responses': responses,
  '/v1/embeddings': embeddings,
}

/** Trains the models, and listens. */
export async function startUpstream(options: UpstreamOptions = {}): Promise<Upstream> {
  const { host = '127.0.0.1', port = 0, now = Date.now } = options
  let made = 0
  const id = (prefix: string): string => `${prefix}_${(++made).toString(36).padStart(8, '0')}`
  const book = readFileSync(BOOK, 'utf8')
  const setting: Setting = {
    texts: new Map<string, Model>([
      [MODELS.large, train(book, 3)],
      [MODELS.small, train(book, 2)],
    ]),
    embeddings: [MODELS.embedding],
    tokensPerSecond: options.tokensPerSecond || Number.POSITIVE_INFINITY,
    seed: options.seed ?? 1,
    isEndless: options.isEndless ?? false,
    isUsageTold: options.isUsageTold ?? true,
    now,
    id,
  }
  const videos = createVideos({
    ...{ models: [MODELS.video], renderMs: options.renderMs ?? 500, now, id },
    film: readFileSync(FILM),
  })
  const server = createServer((request, response) => {
    handle(request, response, setting, videos, options.key).catch((error: unknown) => refuse(response, error))
  })
  server.listen(port, host)
  await once(server, 'listening')
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}`,
    server,
    videos,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  setting: Setting,
  videos: Videos,
  key: string | undefined,
): Promise<void> {
  if (key !== undefined && request.headers.authorization !== `Bearer ${key}`)
    throw new Refusal(401, 'Incorrect API key provided.', null, 'invalid_api_key')
  const url = new URL(request.url ?? '/', 'http://upstream')
  const handler = request.method === 'POST' ? HANDLERS[url.pathname] : undefined
  if (handler !== undefined) {
    const gone = new AbortController()
    response.on('close', () => gone.abort(new Error('the caller has gone')))
    return send(response, await handler(await bodyOf(request), setting, gone.signal), gone.signal)
  }
  const [, first, name, rest, ...more] = url.pathname.split('/').slice(1)
  if (first === 'models' && request.method === 'GET' && rest === undefined)
    return sendJson(response, modelsOf(name, setting.now))
  if (first === 'videos' && more.length === 0) {
    const answer = await ofVideos(request, videos, url, name, rest)
    if (answer !== undefined)
      return Buffer.isBuffer(answer) ? sendFilm(response, answer) : sendJson(response, answer)
  }
  throw new Refusal(404, `Invalid URL (${request.method} ${url.pathname})`, null, 'unknown_url')
}

async function ofVideos(
  request: IncomingMessage,
  videos: Videos,
  { searchParams }: URL,
  id: string | undefined,
  rest: string | undefined,
): Promise<object | Buffer | undefined> {
  const what = `${request.method} ${[id && ':id', rest].filter(Boolean).join('/')}`
  if (what === 'POST ') return videos.create(await bodyOf(request))
  if (what === 'GET ') return videos.list(searchParams)
  if (what === 'GET :id') return videos.retrieve(id as string)
  if (what === 'DELETE :id') return videos.remove(id as string)
  if (what === 'GET :id/content') return videos.content(id as string)
  if (what === 'POST :id/remix') return videos.remix(id as string, await bodyOf(request))
  return undefined
}

function modelsOf(name: string | undefined, now: () => number): object {
  const created = Math.floor(now() / 1_000)
  const data = Object.values(MODELS).map(
    (id): OpenAI.Model => ({ id, object: 'model', created, owned_by: 'sluice-examples' }),
  )
  if (name === undefined) return { object: 'list', data }
  const one = data.find(({ id }) => id === name)
  if (one === undefined)
    throw new Refusal(404, `The model '${name}' does not exist`, 'model', 'model_not_found')
  return one
}

/** JSON, or a form with fields: the official packages send videos as forms. */
async function bodyOf(request: IncomingMessage): Promise<Body> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of request) {
    size += (piece as Buffer).length
    if (size > MAX_BODY_BYTES) throw new Refusal(413, 'The body is too large.')
    pieces.push(piece as Buffer)
  }
  const body = Buffer.concat(pieces)
  const type = request.headers['content-type'] ?? ''
  try {
    if (type.startsWith('multipart/form-data')) {
      const form = await new Response(body, { headers: { 'content-type': type } }).formData()
      return Object.fromEntries(form)
    }
    const value: unknown = JSON.parse(body.toString('utf8'))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Body
  } catch {}
  throw new Refusal(400, 'We could not parse the body of your request.')
}

async function send(response: ServerResponse, answer: Answer, signal: AbortSignal): Promise<void> {
  if ('json' in answer) return sendJson(response, answer.json)
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' })
  for await (const frame of answer.frames)
    if (!response.write(frame)) await once(response, 'drain', { signal })
  response.end()
}

function sendJson(response: ServerResponse, body: object, status = 200): void {
  const text = JSON.stringify(body)
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}

function sendFilm(response: ServerResponse, film: Buffer): void {
  response.writeHead(200, { 'content-type': 'video/mp4', 'content-length': film.length })
  response.end(film)
}

function refuse(response: ServerResponse, error: unknown): void {
  if (response.headersSent || response.destroyed) return void response.destroy()
  const { status, message, param, code } =
    error instanceof Refusal ? error : new Refusal(500, 'The server had an error.', null, 'server_error')
  const type = status >= 500 ? 'server_error' : 'invalid_request_error'
  sendJson(response, { error: { message, type, param, code } }, status)
}
