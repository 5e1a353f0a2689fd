/** `envoy.service.ratelimit.v3.RateLimitService`: the descriptors of its message, and the verdicts in its answer. */
import type { DecisionAnswer, Limit } from '../../wire.ts'
import type { Descriptor } from './rate-limit.ts'
import type { Fields, Turned, Verdict } from './verdict.ts'

/** What is read of the message. */
export interface RateLimitRequest {
  readonly domain: string
  readonly descriptors: readonly { readonly entries: Descriptor }[]
  /** 0 where it is not told, which stands for 1. */
  readonly hits_addend: number
}

/** RateLimitResponse.Code */
const UNKNOWN = 0
const OK = 1
const OVER_LIMIT = 2
const MOST = 0xffff_ffff

/** `descriptors` is how many there were: those behind a refused one were not asked for. */
export function rateLimitAnswer(verdicts: readonly Verdict[], descriptors: number): object | Turned {
  const last = verdicts.at(-1)
  if (last?.kind === 'undecided') return last
  const statuses = verdicts.map(({ kind, decision }) => ({
    code: kind === 'passed' ? OK : OVER_LIMIT,
    ...(decision !== undefined && limitOf(decision)),
  }))
  while (statuses.length < descriptors) statuses.push({ code: UNKNOWN })
  if (last?.kind === 'refused')
    return {
      overall_code: OVER_LIMIT,
      statuses,
      response_headers_to_add: values(last.fields),
      raw_body: Buffer.from(last.body),
    }
  const asked = verdicts.filter((verdict) => verdict.kind === 'passed' && verdict.decision !== undefined)
  const [only] = asked.length === 1 ? asked : []
  return {
    overall_code: OK,
    statuses,
    // Of several descriptors each has limits of its own: they stand in `statuses`.
    response_headers_to_add: only === undefined ? [] : values(only.fields),
  }
}

/** The limit that is nearest to its end. Its window has no length that is told, so its unit stays unknown. */
function limitOf({ limits, decided_at, retry_after_ms }: DecisionAnswer): object {
  const tightest = limits.reduce<Limit | undefined>(
    (least, one) => (least === undefined || share(one) < share(least) ? one : least),
    undefined,
  )
  if (tightest === undefined) return {}
  const { name, limit, remaining, resets_at } = tightest
  const resetMs = resets_at === undefined ? retry_after_ms : resets_at - decided_at
  return {
    current_limit: { name, requests_per_unit: whole(limit) },
    limit_remaining: whole(remaining),
    ...(resetMs !== undefined && { duration_until_reset: durationOf(Math.max(0, resetMs)) }),
  }
}

const share = ({ limit, remaining }: Limit): number => Number(remaining) / Math.max(Number(limit), 1e-6)
const whole = (amount: string): number => Math.min(MOST, Math.max(0, Math.floor(Number(amount))))
const durationOf = (ms: number): object => ({
  seconds: Math.floor(ms / 1000),
  nanos: Math.round((ms % 1000) * 1e6),
})
const values = (fields: Fields): readonly object[] =>
  Object.entries(fields).map(([key, value]) => ({ key, value }))
