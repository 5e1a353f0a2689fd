/**
 * The circuit breaker of an upstream that many accounts share: none of them alone can open it, nor keep it open. The client's own
 * (`client/breaker.ts`) counts the rests; here stands whose failures count.
 */
import { createBreaker } from '../../client/breaker.ts'
import type { Millis } from '../units.ts'

export interface SharedBreaker {
  /** A pass for one call of this account; undefined where it is not to be sent now. */
  admit(account: string): Pass | undefined
}

/** Told once how the call went; where the caller left before that was known, never. */
export interface Pass {
  succeeded(): void
  /** `isReached` where something was sent: then it may have been for what the call said. */
  failed(isReached: boolean): void
}

export interface SharedBreakerOptions {
  /** Failures in a row after which it opens, and how many of them may be one account's. */
  readonly failures: number
  readonly ofOneAccount: number
  readonly restMs: Millis
  readonly maxRestMs: Millis
  readonly now: () => Millis
  readonly random: () => number
}

export function createSharedBreaker(options: SharedBreakerOptions): SharedBreaker {
  const { failures, ofOneAccount, restMs, now } = options
  const rests = createBreaker({ ...options, failures: 1 })
  let inARow = 0
  const byAccount = new Map<string, number>()
  let isOpen = false
  /** Accounts that have tried to find out since it opened: for a while after each rest others come first. */
  const triedBy = new Set<string>()
  let othersUntil: Millis = 0

  function rest(): void {
    isOpen = true
    rests.failed()
    letOthersFirst()
  }
  function letOthersFirst(): void {
    othersUntil = now() + rests.restMs + restMs
  }

  function count(account: string, isReached: boolean): void {
    const before = byAccount.get(account) ?? 0
    if (isReached && before >= ofOneAccount) return
    byAccount.set(account, before + 1)
    if (++inARow >= failures) rest()
  }

  return {
    admit(account) {
      if (isOpen && triedBy.has(account) && now() < othersUntil) return undefined
      if (!rests.admits()) return undefined
      const isTrial = isOpen
      if (isTrial) {
        triedBy.add(account)
        letOthersFirst()
      }
      return {
        succeeded() {
          inARow = 0
          // To clear what is empty makes a new table all the same.
          if (byAccount.size > 0) byAccount.clear()
          if (triedBy.size > 0) triedBy.clear()
          isOpen = false
          rests.succeeded()
        },
        failed(isReached) {
          // Calls that were sent before it opened say nothing new.
          if (isTrial) rest()
          else if (!isOpen) count(account, isReached)
        },
      }
    },
  }
}
