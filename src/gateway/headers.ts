/** Header fields that cross the gateway. */
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http'

/** Fields of a connection, not of a message (RFC 9110, section 7.6.1), and what `Connection` names beside them. */
const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]
/** The caller's own: its key, who it is, and what is made anew. */
const CALLERS = [
  'authorization',
  'x-api-key',
  'api-key',
  'x-goog-api-key',
  'cookie',
  'host',
  'content-length',
  'accept-encoding',
  'expect',
  'forwarded',
  'via',
  'x-real-ip',
  // What is sent is written anew, unpacked.
  'content-encoding',
  // Callers share the gateway's account: one must not be answered with what another was.
  'idempotency-key',
]
/** About the gateway's own account at the upstream, and what the gateway tells itself. */
const UPSTREAMS = ['set-cookie', 'content-length', 'alt-svc', 'strict-transport-security', 'server', 'date']

/** Whose account it is at the upstream, in either direction. */
const ACCOUNTS = ['openai-organization', 'openai-project', 'anthropic-organization', 'anthropic-workspace']

const dropped = (names: readonly string[]) => new Set([...HOP_BY_HOP, ...names])
const FROM_CALLER = dropped(CALLERS)
const FROM_UPSTREAM = dropped(UPSTREAMS)

/** What goes upstream of a caller's header. Nothing that says who it is to Sluice. */
export function forUpstream(headers: IncomingHttpHeaders): Record<string, string> {
  const named = namedByConnection(headers.connection)
  const sent: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || FROM_CALLER.has(name) || named.has(name)) continue
    if (
      name.startsWith('x-sluice-') ||
      name.startsWith('x-forwarded-') ||
      ACCOUNTS.some((start) => name.startsWith(start))
    )
      continue
    sent[name] = Array.isArray(value) ? value.join(', ') : value
  }
  // What is metered is read: it comes as it is.
  sent['accept-encoding'] = 'identity'
  return sent
}

/** What goes to the caller of an upstream's header. */
export function forCaller(
  headers: Readonly<Record<string, string | readonly string[]>>,
): OutgoingHttpHeaders {
  const named = namedByConnection(String(headers.connection ?? ''))
  const sent: OutgoingHttpHeaders = {}
  for (const [name, value] of Object.entries(headers)) {
    if (FROM_UPSTREAM.has(name) || named.has(name)) continue
    if (
      name.startsWith('x-ratelimit-') ||
      name.startsWith('ratelimit') ||
      name.startsWith('x-sluice-') ||
      name.startsWith('anthropic-ratelimit-') ||
      ACCOUNTS.some((start) => name.startsWith(start))
    )
      continue
    sent[name] = typeof value === 'string' ? value : [...value]
  }
  return sent
}

const namedByConnection = (connection: string | undefined): ReadonlySet<string> =>
  new Set((connection ?? '').split(',').map((name) => name.trim().toLowerCase()))
