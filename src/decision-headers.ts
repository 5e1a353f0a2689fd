/**
 * The header fields of a decision: `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers, and
 * `Retry-After` where waiting helps. They are made from the answer's own `limits`, so that header and body show the
 * same numbers. The draft has integers only: CU are told in µCU (`qu="micro-cu"`), exact; other units rounded down.
 * A limit of one subject carries it as partition key, `pk`. The length of a window is not part of an answer, so
 * there is no `w`.
 */
import type { DecisionAnswer, Limit } from './wire.ts'

export interface DecisionHeaders {
  readonly 'ratelimit-policy'?: string
  readonly ratelimit?: string
  readonly 'retry-after'?: string
}

/** Integers of structured fields have at most 15 digits; more is as good as no end. */
const MOST = 999_999_999_999_999

/**
 * The fields of one decision. Written by hand out of the parts, since the general writer took 17 µs for six limits and
 * this takes 3; the tests read it back as a strict client would.
 */
export function decisionHeaders(answer: DecisionAnswer): DecisionHeaders {
  let policies = ''
  let states = ''
  let told: Limit | undefined
  let partition = ''
  for (const limit of answer.limits) {
    const name = quoted(limit.name)
    const unit = unitOf(limit)
    if (name === undefined || unit === undefined) continue
    const comma = policies === '' ? '' : ', '
    // Most limits of an answer are of one subject.
    if (told === undefined || limit.by !== told.by || limit.subject !== told.subject)
      partition = partitionOf(limit)
    told = limit
    policies += `${comma}${name};q=${quota(limit.limit, limit.unit)}${unit}${partition}`
    const resets = limit.resets_at === undefined ? '' : `;t=${seconds(limit.resets_at - answer.decided_at)}`
    states += `${comma}${name};r=${quota(limit.remaining, limit.unit)}${resets}${partition}`
  }
  const waits = answer.outcome === 'wait' && answer.retry_after_ms !== undefined
  return {
    ...(policies !== '' && { 'ratelimit-policy': policies, ratelimit: states }),
    ...(waits && { 'retry-after': retryAfter(answer.retry_after_ms) }),
  }
}

/** `Retry-After` in whole seconds, rounded up, so that nobody returns too early (RFC 9110, section 10.2.3). */
export function retryAfter(ms: number): string {
  return String(seconds(ms))
}

function seconds(ms: number): number {
  return Math.min(MOST, Math.max(0, Math.ceil(ms / 1000)))
}

/** The amounts are Sluice's own, and up to `MOST` exact as doubles. */
function quota(amount: string, unit: string): number {
  return Math.min(MOST, unit === 'cu' ? Math.round(Number(amount) * 1_000_000) : Math.floor(Number(amount)))
}

/** RFC 9651, section 3.3.3. */
const PRINTABLE = /^[ -~]*$/

/** Names of limits come from policies, so there are few: each is quoted once. */
const names = new Map<string, string | undefined>()

/** Undefined for a name outside ASCII, which has no form in a String; the body still tells it. */
function quoted(name: string): string | undefined {
  let text = names.get(name)
  if (text !== undefined || names.has(name)) return text
  text = PRINTABLE.test(name) ? `"${name.replace(/[\\"]/g, '\\$&')}"` : undefined
  if (names.size >= 1000) names.clear()
  names.set(name, text)
  return text
}

/** The draft registers `request`, which is the default, and `concurrent-requests`. */
function unitOf({ unit }: Limit): string | undefined {
  if (unit === 'requests') return ''
  if (unit === 'cu') return ';qu="micro-cu"'
  const name = quoted(unit === 'holds' ? 'concurrent-requests' : unit)
  return name === undefined ? undefined : `;qu=${name}`
}

function partitionOf({ by, subject }: Limit): string {
  return by === undefined || subject === undefined ? '' : `;pk=:${base64(`${by}=${subject}`)}:`
}

/** Of its UTF-8; standard in every runtime. */
function base64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)))
}
