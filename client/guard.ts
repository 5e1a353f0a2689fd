/**
 * What all middlewares share: a request is mapped to what it needs, refused with problem details, or let in and metered
 * until its response has ended.
 */

import { decisionHeaders, retryAfter } from '../src/decision-headers.ts'
import type { QuantitiesIn } from '../src/wire.ts'
import type { AccessOptions, AccessRequest, Refused } from './access.ts'
import type { Client } from './client.ts'
import { SluiceError } from './error.ts'
import type { Lease } from './lease.ts'
import { open } from './open.ts'

/** How requests are guarded and metered; the rest is as `access` takes it. */
export interface GuardOptions<Context> extends AccessOptions {
  readonly client: Client
  /** Whom it is for and what it needs; undefined lets it pass unmetered. */
  request(context: Context): AccessRequest | undefined | Promise<AccessRequest | undefined>
  /**
   * What it used, told when the response has ended without failing. Absent or undefined, or where it fails or answers what is no
   * quantity: what the handler reported, else as estimated.
   */
  usage?(context: Context, response: { readonly status: number }): QuantitiesIn | undefined
  /** Whether a response of this status is not charged: from 500 on. */
  isFailure?(status: number): boolean
  /** Told of an error of `usage`, which has no request any more that could fail by it. Absent: it is written to the console. */
  onError?(error: unknown): void
}

/** A refusal as an HTTP response: problem details (RFC 9457), `Retry-After`, and the `RateLimit` fields. */
export interface Refusal {
  readonly status: 429 | 409 | 503
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** A request that was let in. */
export interface Admitted {
  readonly lease: Lease
  /** The `RateLimit` fields of the decision. */
  readonly headers: Readonly<Record<string, string>>
  /** The response has ended, whole or cut off: settles what was used, or gives everything back. */
  end(outcome: { readonly status: number; readonly cutOff: boolean }): Promise<void>
}

export type Entry =
  | { readonly pass: true; readonly admitted: Admitted | undefined }
  | { readonly pass: false; readonly refusal: Refusal }

/** Rejects with a `SluiceError` where what `request` answers is wrong. */
export async function enter<Context>(context: Context, options: GuardOptions<Context>): Promise<Entry> {
  const wanted = await options.request(context)
  if (wanted === undefined) return { pass: true, admitted: undefined }
  const request_id = wanted.request_id ?? crypto.randomUUID()
  const opened = await open(options.client, { ...wanted, request_id }, options).catch((error: unknown) =>
    closingOf(error, request_id),
  )
  if (!opened.ok) return { pass: false, refusal: refusalOf(opened) }
  const { lease, end } = opened
  const isFailure = options.isFailure ?? ((status) => status >= 500)
  return {
    pass: true,
    admitted: {
      lease,
      headers: fieldsOf(lease),
      async end({ status, cutOff }) {
        if (cutOff) return end('cutOff')
        try {
          const used = options.usage?.(context, { status })
          if (used !== undefined) lease.report(used)
        } catch (error) {
          // The hold ends all the same.
          if (options.onError !== undefined) options.onError(error)
          else console.error(error)
        }
        return end(isFailure(status) ? 'failed' : 'done')
      },
    },
  }
}

/** A process that is about to end takes nobody in any more: another may. */
function closingOf(error: unknown, request_id: string): Refused {
  if (!(error instanceof SluiceError) || error.code !== 'closing') throw error
  const [outcome, reason] = ['unavailable', 'closing'] as const
  return { ok: false, request_id, outcome, reason, retryAfterMs: undefined, decision: undefined, error }
}

/** With what ends a request besides: its own signal, where it has one. */
export function endedBy<Options extends AccessOptions>(options: Options, signal: AbortSignal): Options {
  const both = options.signal === undefined ? signal : AbortSignal.any([options.signal, signal])
  return { ...options, signal: both }
}

function fieldsOf(lease: Lease): Readonly<Record<string, string>> {
  return lease.decision === undefined ? {} : { ...decisionHeaders(lease.decision) }
}

const TITLES: Readonly<Record<Refused['outcome'], string>> = {
  wait: 'More is allowed later.',
  deny: 'This is not allowed.',
  done: 'This request has run before.',
  unavailable: 'Whether this is allowed cannot be decided now.',
}

export function refusalOf({ outcome, reason, request_id, retryAfterMs, decision }: Refused): Refusal {
  const status = outcome === 'done' ? 409 : outcome === 'unavailable' ? 503 : 429
  const fields = decision === undefined ? {} : decisionHeaders(decision)
  return {
    status,
    headers: {
      'content-type': 'application/problem+json; charset=utf-8',
      ...fields,
      ...(retryAfterMs !== undefined && { 'retry-after': retryAfter(retryAfterMs) }),
    },
    body: JSON.stringify({
      type: 'about:blank',
      title: TITLES[outcome],
      status,
      code: reason,
      outcome,
      // Under which `explain` tells why.
      request_id,
      ...(retryAfterMs !== undefined && { retry_after_ms: Math.ceil(retryAfterMs) }),
      ...(decision?.unblock !== undefined && { unblock: decision.unblock }),
    }),
  }
}
