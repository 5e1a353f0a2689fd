/** The calls of a running server, as the same methods that an engine has. Commands need not know which of the two they use. */
import type { Caller, Engine } from '../engine.ts'
import { ERRORS, type ErrorCode, SluiceError } from '../errors.ts'
import type { PageQuery, Problem } from '../wire.ts'
import { CliError, EXIT, usage } from './failure.ts'

/** What commands do with state, through HTTP or directly. */
export type Desk = Pick<
  Engine,
  | 'createAccount'
  | 'account'
  | 'patchAccount'
  | 'overrideLimits'
  | 'accounts'
  | 'grant'
  | 'revokeGrant'
  | 'erase'
  | 'repairClock'
  | 'grants'
  | 'holds'
  | 'subjects'
  | 'entries'
  | 'usage'
  | 'explain'
  | 'explainAnywhere'
  | 'policy'
  | 'policyVersions'
  | 'publishPolicy'
  | 'createKey'
  | 'keys'
  | 'revokeKey'
>

/** Entries of commands that work on a store directly name this actor; over HTTP it is the key's id. */
export const OPERATOR: Caller = { actor: '@operator' }

const DEADLINE_MS = 30_000
/** For what reads all that an account ever did. */
const READS_ALL_MS = 280_000

export interface ServerAddress {
  readonly url: string
  readonly key: string
}

export function checkServer(url: string, key: string | undefined): ServerAddress {
  const parsed = URL.parse(url)
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) {
    throw usage(`${url} is not the address of a server`, 'Give --url as http://HOST:PORT.')
  }
  if (key === undefined || key === '') {
    throw usage('A server asks for a key', 'Give it in SLUICE_KEY or with --key.')
  }
  return { url: parsed.href.replace(/\/$/, ''), key }
}

type Query = Readonly<Record<string, string | number | boolean | undefined>>
interface Sent {
  readonly query?: Query
  readonly body?: unknown
  /** Sent as it is. */
  readonly yaml?: string
  readonly ifMatch?: string
  readonly deadlineMs?: number
}

export function deskOverHttp(server: ServerAddress): Desk {
  const call = <T>(method: string, path: string, sent: Sent = {}): Promise<T> =>
    send(server, method, path, sent) as Promise<T>
  const get = <T>(path: string, query: Query = {}): Promise<T> => call('GET', path, { query })
  const of = (account: string, more = ''): string => `/v1/accounts/${encodeURIComponent(account)}${more}`
  const revision = (wanted: number | undefined): Sent =>
    wanted === undefined ? {} : { ifMatch: `"${wanted}"` }

  return {
    createAccount: (body) => call('POST', '/v1/accounts', { body }),
    account: (id, subject) => get(of(id), subject),
    patchAccount: (id, body, wanted) => call('PATCH', of(id), { body, ...revision(wanted) }),
    overrideLimits: (id, body, wanted) => call('PUT', of(id, '/overrides'), { body, ...revision(wanted) }),
    accounts: (query) => get('/v1/accounts', query as Query),
    grant: (account, body) => call('POST', of(account, '/grants'), { body }),
    revokeGrant: (account, grant, body = {}) =>
      call('POST', of(account, `/grants/${encodeURIComponent(grant)}/revoke`), { body }),
    erase: (account, dimension, value) =>
      call('POST', of(account, '/erase'), { body: { dimension, value }, deadlineMs: READS_ALL_MS }),
    repairClock: (account) => call('POST', of(account, '/repair')),
    grants: (account, query) => get(of(account, '/grants'), paged(query)),
    holds: (account, query) => get(of(account, '/holds'), paged(query)),
    subjects: (account, query) => get(of(account, '/subjects'), paged(query)),
    entries: (account, { kinds, newestFirst, ...page }) =>
      get(of(account, '/entries'), {
        ...paged(page),
        kind: kinds?.join(','),
        order: newestFirst === true ? 'newest' : undefined,
      }),
    usage: async (account, { group_by, ...query }) => {
      const answer = await get<{ items: Awaited<ReturnType<Desk['usage']>> }>(of(account, '/usage'), {
        ...query,
        group_by: group_by?.join(','),
      })
      return answer.items
    },
    explain: (account, request) => get(of(account, `/requests/${encodeURIComponent(request)}`)),
    explainAnywhere: async (request) => {
      const answer = await get<{ items: Awaited<ReturnType<Desk['explainAnywhere']>> }>(
        `/v1/requests/${encodeURIComponent(request)}`,
      )
      return answer.items
    },
    policy: (version) => get('/v1/policy', { version }),
    policyVersions: (query) => get('/v1/policy/versions', paged(query)),
    publishPolicy: (yaml, wanted) =>
      call('PUT', '/v1/policy', { yaml, ifMatch: wanted === undefined ? '*' : `"${wanted}"` }),
    createKey: (body) => call('POST', '/v1/keys', { body }),
    keys: (query) => get('/v1/keys', paged(query)),
    revokeKey: (id) => call('POST', `/v1/keys/${encodeURIComponent(id)}/revoke`),
  }
}

/** No method of a desk: on a store without a server there is no clock that anybody watches. */
export async function acceptClock(server: ServerAddress): Promise<void> {
  await send(server, 'POST', '/v1/clock/accept', {})
}

const paged = ({ limit, cursor }: PageQuery): Query => ({ limit, cursor })

async function send(server: ServerAddress, method: string, path: string, sent: Sent): Promise<unknown> {
  const url = new URL(`${server.url}${path}`)
  for (const [name, value] of Object.entries(sent.query ?? {})) {
    if (value !== undefined) url.searchParams.set(name, String(value))
  }
  const headers: Record<string, string> = { authorization: `Bearer ${server.key}` }
  const body = sent.yaml ?? (sent.body === undefined ? undefined : JSON.stringify(sent.body))
  if (body !== undefined)
    headers['content-type'] = sent.yaml === undefined ? 'application/json' : 'application/yaml'
  if (sent.ifMatch !== undefined) headers['if-match'] = sent.ifMatch
  const deadlineMs = sent.deadlineMs ?? DEADLINE_MS
  let answer: Response
  try {
    const signal = AbortSignal.timeout(deadlineMs)
    answer = await fetch(url, { method, headers, signal, ...(body !== undefined && { body }) })
  } catch (error) {
    throw new CliError(
      EXIT.unreachable,
      `${server.url} does not answer: ${reasonOf(error, deadlineMs)}`,
      'Check --url, and that the server runs.',
    )
  }
  const value = await readJson(answer, server.url)
  if (answer.ok) return value
  throw problemOf(value, answer.status, server.url)
}

/** `fetch failed` says nothing; its cause does. */
function reasonOf(error: unknown, deadlineMs: number): string {
  const { cause, name, message } = error as Error & { cause?: { code?: string; message?: string } }
  if (name === 'TimeoutError') return `nothing came within ${deadlineMs / 1000} seconds`
  return cause?.code ?? (cause?.message || message)
}

async function readJson(answer: Response, url: string): Promise<unknown> {
  try {
    return JSON.parse(await answer.text())
  } catch {
    throw new CliError(
      EXIT.unreachable,
      `${url} answered ${answer.status} and not in JSON`,
      'Check that --url is a Sluice server.',
    )
  }
}

/** A problem document as the error that the engine threw, so that both ways end in the same line and exit code. */
function problemOf(value: unknown, status: number, url: string): Error {
  const problem = value as Partial<Problem>
  if (typeof problem?.code !== 'string' || !Object.hasOwn(ERRORS, problem.code)) {
    return new CliError(EXIT.unreachable, `${url} answered ${status}`, 'Check that --url is a Sluice server.')
  }
  const { detail = '', path, remedy, complaints } = problem
  return new SluiceError(problem.code as ErrorCode, detail, {
    ...(path !== undefined && { path }),
    ...(remedy !== undefined && { remedy }),
    ...(complaints !== undefined && { complaints }),
  })
}
