/**
 * Envoy's rate limit service: descriptors that the proxy made of a request become requests for what they cost. All of them are
 * let in, or none: what was held for the first is given back where the second is refused.
 */
import type { Refused } from '../../../client/access.ts'
import { amountOf, microsOf } from '../../../client/amounts.ts'
import { type Opened, open } from '../../../client/open.ts'
import type { Caller } from '../../engine.ts'
import { bearer, type Keyring } from '../../keyring.ts'
import type { AmountIn, ReserveRequest, Subject } from '../../wire.ts'
import type { Calls } from '../calls.ts'
import type { RateLimitConfig, RateRule } from './config.ts'
import type { Payer } from './gate.ts'
import { passed, refusal, thrown, turned, UNASKED, type Verdict } from './verdict.ts'

export interface RateLimitOptions {
  readonly keyring: Keyring
  readonly calls: Calls
  readonly payer: Payer
  readonly config: RateLimitConfig
  readonly onFault: (error: unknown) => void
}

/** The entries of a descriptor, in their order. */
export type Descriptor = readonly { readonly key: string; readonly value: string }[]

export interface RateLimit {
  /** One verdict for each descriptor up to the first that is not let in. Never rejects. */
  ask(
    domain: string,
    descriptors: readonly Descriptor[],
    hits: number,
    gone: AbortSignal,
  ): Promise<readonly Verdict[]>
}

/** On whose behalf accounts are asked for that a descriptor names. */
const PROXY: Caller = { actor: 'gateway' }

interface Wanted {
  readonly caller: Caller
  readonly request: ReserveRequest
}

export function createRateLimit({ keyring, calls, payer, config, onFault }: RateLimitOptions): RateLimit {
  async function wantedBy(
    rule: RateRule,
    entry: (key: string) => string | undefined,
    hits: number,
    place: number,
  ): Promise<Wanted> {
    const { caller, account, subject } = await whoPays(rule, entry)
    const id = rule.requestId === undefined ? undefined : entry(rule.requestId)
    const { feature, cost, quantities } = rule
    return {
      caller,
      request: {
        // A request of the proxy may come with several descriptors, each of which is a request here.
        request_id: id ? `${id}:${place}` : crypto.randomUUID(),
        ...{ account, feature, attributes: picked(rule.attributes, entry) },
        ...(subject !== undefined && { subject }),
        ...(cost !== undefined && { cost: times(cost, hits) }),
        ...(quantities !== undefined && {
          estimate: Object.fromEntries(
            Object.entries(quantities).map(([name, each]) => [name, times(each, hits)]),
          ),
        }),
      },
    }
  }

  async function whoPays(
    rule: RateRule,
    entry: (key: string) => string | undefined,
  ): Promise<{ caller: Caller; account: string; subject: Subject | undefined }> {
    if (rule.key === undefined) {
      const subject = picked(rule.subject, entry)
      return {
        caller: PROXY,
        account: entry(rule.account as string) as string,
        subject: Object.keys(subject).length === 0 ? undefined : subject,
      }
    }
    const given = entry(rule.key) as string
    const key = await keyring.key(bearer(/^bearer /i.test(given) ? given : `Bearer ${given}`))
    return { caller: { actor: key.id, subject: key.subject }, ...payer(key) }
  }

  async function admit({ caller, request }: Wanted, gone: AbortSignal): Promise<Opened | Refused> {
    return open(calls.of(caller), request, { endpoint: 'rate_limit', signal: gone })
  }

  return {
    async ask(domain, descriptors, hits, gone) {
      const verdicts: Verdict[] = []
      const opened: Opened[] = []
      let isIn = true
      try {
        for (const [place, descriptor] of descriptors.entries()) {
          const entry = (key: string) => descriptor.find((one) => one.key === key)?.value
          const rule = config.rules.find((one) => one.domain === domain && fits(one, entry))
          if (rule === undefined && config.otherwise === 'pass') {
            verdicts.push(UNASKED)
            continue
          }
          isIn = false
          if (rule === undefined) {
            verdicts.push(refusal(403, 'no_rule', 'no rule fits this descriptor'))
            break
          }
          const wanted = await wantedBy(rule, entry, hits, place)
          const { account, request_id } = wanted.request
          const answer = await admit(wanted, gone)
          if (answer.ok) opened.push(answer)
          const verdict = answer.ok
            ? passed(account, request_id, answer.lease.decision)
            : turned(answer, account)
          verdicts.push(verdict)
          isIn = verdict.kind === 'passed'
          if (!isIn) break
        }
      } catch (error) {
        isIn = false
        const verdict = thrown(error)
        if (verdict.code === 'internal' && !gone.aborted) onFault(error)
        verdicts.push(verdict)
      }
      await Promise.all(opened.map(({ end }) => end(isIn ? 'done' : 'failed')))
      return verdicts
    },
  }
}

function fits({ entries, account, key }: RateRule, entry: (key: string) => string | undefined): boolean {
  if (!entry((key ?? account) as string)) return false
  for (const [name, pattern] of entries) if (!pattern.test(entry(name) ?? '')) return false
  return true
}

/** What the named entries say; those that the descriptor does not have are left out. */
function picked(
  names: Readonly<Record<string, string>>,
  entry: (key: string) => string | undefined,
): Readonly<Record<string, string>> {
  const all = Object.entries(names).map(([name, key]) => [name, entry(key)] as const)
  return Object.fromEntries(all.filter((one): one is readonly [string, string] => one[1] !== undefined))
}

const times = (each: AmountIn, hits: number): AmountIn => amountOf(microsOf(each) * BigInt(hits))
