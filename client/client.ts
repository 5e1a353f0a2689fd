import type * as wire from '../src/wire.ts'
import {
  type Access,
  type AccessOptions,
  AccessRefused,
  type AccessRequest,
  createAccesses,
} from './access.ts'
import { createBounds } from './bounds.ts'
import { createBreaker } from './breaker.ts'
import type { SluiceError } from './error.ts'
import type { Lease } from './lease.ts'
import { checkUnavailability, createOutage, type Unavailability } from './outage.ts'
import { memorySpool, type Spool } from './spool.ts'
import { createTogether } from './together.ts'
import { type CallOptions, createTransport } from './transport.ts'
import { createWatches, type WatchOptions } from './watch.ts'

/** Where Sluice is, and what happens while it is not. */
export interface ClientOptions {
  /** Where Sluice listens: `http://127.0.0.1:8080`. */
  readonly url: string
  /** One key for all calls, of role `meter` at least; accounts, grants and `watch` want what docs/reference/http.md says. */
  readonly key: string
  /** Milliseconds in which a call is answered or fails, retries included: 250. */
  readonly deadlineMs?: number
  /** How long a call that decides or meters waits for others to travel with, in milliseconds: 1. 0 sends each for itself. */
  readonly togetherMs?: number
  /** Who is let through while Sluice is away: nobody (`closed`). */
  readonly onUnavailable?: Unavailability
  /** Failures in a row after which Sluice is left alone for a while, and how long at first and at most. */
  readonly breaker?: { readonly failures?: number; readonly restMs?: number; readonly maxRestMs?: number }
  /** Where that is kept which could not be told: in memory. */
  readonly spool?: Spool
  /** How many operations it keeps, and how many requests may be let through at once while Sluice is away: 10,000. */
  readonly maxKept?: number
  /** Told of an operation that Sluice would never take, or that there was no room for. */
  readonly onLost?: (operation: wire.Operation, error: SluiceError) => void
  /** In place of the runtime's. */
  readonly fetch?: typeof globalThis.fetch
}

/** All of it may be called from anywhere, and any number of times with the same ids: nothing counts twice. */
export interface Client {
  /**
   * Asks for what the request needs, runs the work with a lease on it, and charges what it reported; every way out ends the
   * hold. A refusal is a value with `ok: false`. Rejects with what the work threw, or with a `SluiceError` where the request is wrong.
   */
  access<T>(
    request: AccessRequest,
    work: (lease: Lease) => T | Promise<T>,
    options?: AccessOptions,
  ): Promise<Access<T>>
  /** The same, answering what the work answered, and throwing `AccessRefused`. */
  accessOrThrow<T>(
    request: AccessRequest,
    work: (lease: Lease) => T | Promise<T>,
    options?: AccessOptions,
  ): Promise<T>

  /** Asks for what a request needs, and holds what is granted. A refusal is an answer. */
  reserve(request: wire.ReserveRequest, options?: CallOptions): Promise<wire.DecisionAnswer>
  /** Asks for more for a request that is open, or renews its hold. */
  extend(request: wire.ExtendRequest, options?: CallOptions): Promise<wire.DecisionAnswer>
  /** Ends a request with what it used: that is charged, the rest of its hold goes back. */
  settle(request: wire.SettleRequest, options?: CallOptions): Promise<wire.ChargeAnswer>
  /** Ends a request that used nothing. */
  release(request: wire.ReleaseRequest, options?: CallOptions): Promise<wire.ReleaseAnswer>
  /** Charges usage after the fact, without a reserve before it. */
  record(request: wire.RecordRequest, options?: CallOptions): Promise<wire.ChargeAnswer>
  /** Gives back a charge, in whole or in part. */
  refund(
    account: string,
    requestId: string,
    request: wire.RefundRequest,
    options?: CallOptions,
  ): Promise<wire.RefundAnswer>

  /** Makes an account on a plan. */
  createAccount(request: wire.AccountRequest, options?: CallOptions): Promise<wire.AccountView>
  /** `subject` selects whose windows are told. */
  account(id: string, subject?: wire.Subject, options?: CallOptions): Promise<wire.AccountView>
  /** Changes plan, status, time zone or notes. */
  updateAccount(id: string, patch: wire.AccountPatch, options?: CallOptions): Promise<wire.AccountView>
  /** Gives credits. */
  grant(account: string, request: wire.GrantRequest, options?: CallOptions): Promise<wire.GrantAnswer>
  /** Takes back what is left of a grant. */
  revoke(
    account: string,
    grant: string,
    request?: wire.RevokeRequest,
    options?: CallOptions,
  ): Promise<wire.GrantView>
  /** What was used and charged, summed by time and by what is asked. */
  usage(account: string, query: wire.UsageQuery, options?: CallOptions): Promise<wire.List<wire.UsageRow>>
  /** The whole story of a request. */
  explain(account: string, requestId: string, options?: CallOptions): Promise<wire.Explanation>

  /**
   * What happens in an account, as it happens: the account first and after changes, each entry once and in order, refusals. It
   * comes back by itself where the connection is lost, and goes on where it was. Ends when its signal is aborted, the loop is left
   * or the client is closed; rejects with a `SluiceError` where it is refused for good.
   */
  watch(account: string, options?: WatchOptions): AsyncIterable<wire.AccountEvent>

  /** Operations that wait to be told. */
  readonly kept: number
  /** Requests whose work is running. */
  readonly running: number
  /** Waits until all that is kept has been told, at most so long; answers whether it was. */
  flush(withinMs?: number): Promise<boolean>
  /**
   * Aborts what is running, ends its holds, tells what is kept, at most so long: work that has not ended after half of that is
   * charged what it reported, and left. Answers whether all was told.
   */
  close(withinMs?: number): Promise<boolean>
}

const DEADLINE_MS = 250
const FLUSH_MS = 5_000
/** Nobody waits for the connection of a stream as callers wait for a decision, and a far one takes longer than those may. */
const CONNECT_MS = 5_000

/** A client, for as long as its process lives: share one, and close it at the end. It connects when it is first used. */
export function createClient(options: ClientOptions): Client {
  const { deadlineMs = DEADLINE_MS, breaker: rests = {} } = options
  const way = {
    url: options.url,
    key: options.key,
    // Looked up when it is called: some runtimes want it called on the global object.
    fetch: options.fetch ?? ((...given: Parameters<typeof globalThis.fetch>) => globalThis.fetch(...given)),
    deadlineMs,
    random: Math.random,
  }
  const watches = createWatches({ ...way, deadlineMs: Math.max(deadlineMs, CONNECT_MS) })
  const transport = createTransport({
    ...way,
    breaker: createBreaker({
      failures: rests.failures ?? 5,
      restMs: rests.restMs ?? 500,
      maxRestMs: rests.maxRestMs ?? 10_000,
      now: () => performance.now(),
      random: Math.random,
    }),
  })
  const together = createTogether({ transport, withinMs: options.togetherMs ?? 1, deadlineMs })
  const spool = options.spool ?? memorySpool()
  const onUnavailable = options.onUnavailable ?? 'closed'
  checkUnavailability(onUnavailable)
  const outage = createOutage({
    transport,
    spool,
    maxKept: options.maxKept ?? 10_000,
    onLost: options.onLost,
  })
  const accesses = createAccesses({
    together,
    outage,
    bounds: createBounds(),
    onUnavailable,
    onLost: options.onLost,
  })

  const part = encodeURIComponent
  async function send<T>(method: string, path: string, body?: unknown, call?: CallOptions): Promise<T> {
    return (await transport.send(method, path, body, call)) as T
  }
  const metered =
    <Request, Answer>(op: wire.Operation['op']) =>
    async (request: Request, call?: CallOptions): Promise<Answer> =>
      (await together.call({ op, ...request } as unknown as wire.Operation, call)) as Answer

  return {
    access: accesses.access,
    async accessOrThrow(request, work, call) {
      const answer = await accesses.access(request, work, call)
      if (!answer.ok) throw new AccessRefused(answer)
      return answer.value
    },
    reserve: metered('reserve'),
    extend: metered('extend'),
    settle: metered('settle'),
    release: metered('release'),
    record: metered('record'),
    refund: (account, id, request, call) =>
      send('POST', `/v1/accounts/${part(account)}/requests/${part(id)}/refund`, request, call),
    createAccount: (request, call) => send('POST', '/v1/accounts', request, call),
    account: (id, subject, call) =>
      send('GET', `/v1/accounts/${part(id)}${queryOf({ ...subject })}`, undefined, call),
    updateAccount: (id, patch, call) => send('PATCH', `/v1/accounts/${part(id)}`, patch, call),
    grant: (account, request, call) => send('POST', `/v1/accounts/${part(account)}/grants`, request, call),
    revoke: (account, grant, request = {}, call) =>
      send('POST', `/v1/accounts/${part(account)}/grants/${part(grant)}/revoke`, request, call),
    usage: (account, { group_by, ...query }, call) =>
      send(
        'GET',
        `/v1/accounts/${part(account)}/usage${queryOf({ ...query, group_by: group_by?.join(',') })}`,
        undefined,
        call,
      ),
    explain: (account, id, call) =>
      send('GET', `/v1/accounts/${part(account)}/requests/${part(id)}`, undefined, call),
    watch: watches.watch,
    get kept() {
      return outage.kept
    },
    get running() {
      return accesses.running
    },
    flush: (withinMs = FLUSH_MS) => outage.flush(withinMs),
    async close(withinMs = FLUSH_MS) {
      const until = performance.now() + withinMs
      watches.close()
      // Half of the time is for work that tidies up when it is told to stop.
      await accesses.close(withinMs / 2)
      const told = await outage.flush(Math.max(0, until - performance.now()))
      outage.close()
      spool.close?.()
      return told
    },
  }
}

function queryOf(values: Readonly<Record<string, string | number | undefined>>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) if (value !== undefined) query.set(name, String(value))
  const text = query.toString()
  return text === '' ? '' : `?${text}`
}
