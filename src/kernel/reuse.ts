/**
 * What a step copied and did not change becomes the very object again that it was copied from. A store keeps cells in
 * memory: new objects in them are moved by one garbage collection after another, old ones stay where they are.
 */
import type { AccountCell, Counters } from './cells.ts'

export function reuseAccount(account: AccountCell, from: AccountCell): void {
  account.counters = reuseCounters(account.counters, from.counters)
  account.grants = reuseEach(account.grants, from.grants)
  account.recurrences = reuse(account.recurrences, from.recurrences)
  account.books = reuse(account.books, from.books)
  account.subjectCounts = reuse(account.subjectCounts, from.subjectCounts)
}

export function reuseCounters(counters: Counters, from: Counters): Counters {
  counters.windows = reuse(counters.windows, from.windows)
  counters.rates = reuse(counters.rates, from.rates)
  counters.concurrency = reuse(counters.concurrency, from.concurrency)
  return reuse(counters, from)
}

function reuseEach<T extends object>(items: T[], from: T[]): T[] {
  if (items.length !== from.length) return items
  let same = true
  for (let place = 0; place < items.length; place++) {
    const item = reuse(items[place] as T, from[place] as T)
    items[place] = item
    same &&= item === from[place]
  }
  return same ? from : items
}

function reuse<T extends object>(copy: T, from: T): T {
  let more = 0
  for (const name in copy) {
    if (copy[name] !== from[name]) return copy
    more++
  }
  for (const _ in from) more--
  return more === 0 ? from : copy
}
