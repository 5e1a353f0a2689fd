/** Live windows and concurrency guards against charges and open holds. */
import type { Millis } from '../../units.ts'
import { cu, instant, type Tell } from './findings.ts'
import { type Journal, sayHolder, type WindowTrace } from './journal.ts'
import type { LiveAccount, LiveCounters } from './live.ts'
import { compareConcurrency, type HeldSums, instanceKey } from './live-holds.ts'
import { usedRange } from './windows.ts'

/** The windows and concurrency guards of one cell: what was used, what is held, and that none is gone too early. */
export function compareCounters(
  journal: Journal,
  account: LiveAccount,
  counters: LiveCounters,
  by: string | null,
  holder: string,
  sums: HeldSums,
  tell: Tell,
): void {
  const whose = sayHolder(holder)
  for (const [key, window] of Object.entries(counters.windows)) {
    const [least, most] = usedRange(journal, by, holder, key, window.startAt)
    if (window.used < least || window.used > most) {
      const right = window.used < least ? least : most
      tell(
        'window',
        `window ${key}${whose} has used ${cu(window.used)}, and its charges add up to ${cu(right)}`,
        {
          amount: window.used - right,
        },
      )
    }
    const held = sums.windows.get(holder)?.get(instanceKey(key, window.startAt)) ?? 0
    if (window.held !== held)
      tell(
        'hold',
        `${cu(window.held)} are held in window ${key}${whose}, and open requests hold ${cu(held)} there`,
        {
          amount: window.held - held,
        },
      )
    compareToldEnd(journal, account, key, window, holder, whose, tell)
  }
  compareGone(journal.windows.get(holder), account, counters.windows, whose, tell)
  compareConcurrency(counters, holder, whose, sums, tell)
}

function compareToldEnd(
  journal: Journal,
  account: LiveAccount,
  key: string,
  window: { readonly startAt: Millis; readonly endAt: Millis },
  holder: string,
  whose: string,
  tell: Tell,
): void {
  const told = journal.windows.get(holder)?.get(key)?.told
  if (told == null || told.endAt <= account.lastAt) return
  if (window.endAt !== told.endAt || window.startAt > told.seenAt)
    tell(
      'window',
      `window ${key}${whose} runs from ${instant(window.startAt)} to ${instant(window.endAt)} in the cell, and a decision at ${instant(told.seenAt)} saw one that ends at ${instant(told.endAt)}`,
    )
}

/** Windows that a decision saw and that have not ended stand in the cell still. */
export function compareGone(
  traces: ReadonlyMap<string, WindowTrace> | undefined,
  account: LiveAccount,
  live: LiveCounters['windows'],
  whose: string,
  tell: Tell,
): void {
  for (const [key, { told, instances }] of traces ?? []) {
    if (told === null || told.endAt <= account.lastAt || live[key] !== undefined) continue
    const last = instances.at(-1)
    const amount = last === undefined ? 0 : last.plus - last.minus
    tell(
      'window',
      `window ${key}${whose} has used ${cu(amount)} and stands until ${instant(told.endAt)}, and the cell has it no more`,
      {
        amount: -amount,
      },
    )
  }
}
