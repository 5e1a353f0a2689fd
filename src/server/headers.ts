/**
 * The header fields of a decision: `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers, and
 * `Retry-After` where waiting helps. They are made from the answer's own `limits`, so that header and body show the
 * same numbers. The draft has integers only: CU are told in µCU (`qu="micro-cu"`), exact; other units rounded down.
 * A limit of one subject carries it as partition key, `pk`. The length of a window is not part of an answer, so
 * there is no `w`.
 */
import { parseMicros } from '../units.ts'
import type { DecisionAnswer, Limit } from '../wire.ts'
import { type BareItem, type Item, isPrintable, writeList } from './structured-fields.ts'

export interface DecisionHeaders {
  readonly 'ratelimit-policy'?: string
  readonly ratelimit?: string
  readonly 'retry-after'?: string
}

/** Integers of structured fields have at most 15 digits; more is as good as no end. */
const MOST = 999_999_999_999_999

/** The fields of one decision. */
export function decisionHeaders(answer: DecisionAnswer): DecisionHeaders {
  const policies: Item[] = []
  const states: Item[] = []
  for (const limit of answer.limits) {
    // A name outside ASCII has no form in a String; the body still tells it.
    if (!isPrintable(limit.name) || !isPrintable(limit.unit)) continue
    const partition = partitionOf(limit)
    policies.push([limit.name, [['q', quota(limit.limit, limit.unit)], ...unitOf(limit), ...partition]])
    const resets =
      limit.resets_at === undefined ? [] : [['t', seconds(limit.resets_at - answer.decided_at)] as const]
    states.push([limit.name, [['r', quota(limit.remaining, limit.unit)], ...resets, ...partition]])
  }
  return {
    ...(policies.length > 0 && { 'ratelimit-policy': writeList(policies), ratelimit: writeList(states) }),
    ...(answer.outcome === 'wait' &&
      answer.retry_after_ms !== undefined && { 'retry-after': retryAfter(answer.retry_after_ms) }),
  }
}

/** `Retry-After` in whole seconds, rounded up, so that nobody returns too early (RFC 9110, section 10.2.3). */
export function retryAfter(ms: number): string {
  return String(seconds(ms))
}

function seconds(ms: number): number {
  return Math.min(MOST, Math.max(0, Math.ceil(ms / 1000)))
}

function quota(amount: string, unit: string): number {
  const micros = parseMicros(amount) ?? 0
  return Math.min(MOST, unit === 'cu' ? micros : Math.floor(micros / 1_000_000))
}

/** The draft registers `request`, which is the default, and `concurrent-requests`. */
function unitOf({ unit }: Limit): readonly (readonly [string, BareItem])[] {
  if (unit === 'requests') return []
  if (unit === 'cu') return [['qu', 'micro-cu']]
  return [['qu', unit === 'holds' ? 'concurrent-requests' : unit]]
}

function partitionOf({ by, subject }: Limit): readonly (readonly [string, BareItem])[] {
  return by === undefined || subject === undefined ? [] : [['pk', Buffer.from(`${by}=${subject}`)]]
}
