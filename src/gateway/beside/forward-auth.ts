/**
 * The questions of proxies over HTTP: `/forward-auth` for those that tell the request as X-Forwarded-Method and -Uri and pass any
 * answer on (Caddy, Traefik), `/forward-auth/nginx` for `auth_request`. Two addresses, since each proxy overwrites its own two
 * fields alone: what a caller writes into the other's is not read.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { Gate } from './gate.ts'
import type { Turned, Verdict } from './verdict.ts'

interface Manner {
  readonly method: string
  readonly target: string
  /** It can pass on 401 and 403 alone: the status that was meant stands in a field beside. */
  readonly isTongueTied: boolean
}

export const MANNERS: ReadonlyMap<string, Manner> = new Map([
  ['/forward-auth', { method: 'x-forwarded-method', target: 'x-forwarded-uri', isTongueTied: false }],
  ['/forward-auth/nginx', { method: 'x-original-method', target: 'x-original-uri', isTongueTied: true }],
])

export async function answerQuestion(
  gate: Gate,
  manner: Manner,
  request: IncomingMessage,
  response: ServerResponse,
  gone: AbortSignal,
): Promise<void> {
  const field = (name: string) => fieldOf(request.headers, name)
  const verdict = await gate.ask({ method: field(manner.method), target: field(manner.target), field }, gone)
  if (!response.destroyed) answer(response, verdict, manner.isTongueTied)
}

function answer(response: ServerResponse, verdict: Verdict, isTongueTied: boolean): void {
  if (verdict.kind === 'passed') {
    response.writeHead(200, { ...verdict.known, ...verdict.fields, 'content-length': 0 }).end()
    return
  }
  const { status, fields, body, decision } = verdict
  const meant = {
    ...(isTongueTied && { 'x-sluice-status': status, 'x-sluice-reason': verdict.code }),
    ...(decision !== undefined && { 'x-sluice-request-id': decision.request_id }),
  }
  response
    .writeHead(isTongueTied ? nearest(verdict) : status, {
      ...{ ...fields, ...meant },
      'content-length': Buffer.byteLength(body),
    })
    .end(body)
}

/** nginx takes everything but 2xx, 401 and 403 for a failure of the question itself, which is what an accident is. */
const nearest = ({ kind, status }: Turned): number => (kind === 'undecided' || status === 401 ? status : 403)

function fieldOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name]
  return typeof value === 'string' ? value : undefined
}
