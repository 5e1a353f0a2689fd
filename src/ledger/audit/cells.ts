/** Live cells against what the journal adds up to. */
import type { Micros, Millis } from '../../units.ts'
import type { Books } from '../books.ts'
import { cu, guarded, type Tell } from './findings.ts'
import { ACCOUNT_HOLDER, holderOf, type Journal, sayHolder } from './journal.ts'
import type { LiveAccount, LiveGrantCell, LiveOverride, LiveRequest, LiveSubject } from './live.ts'
import { compareCounters, compareGone } from './live-counters.ts'
import { compareGrants, openGrantCells } from './live-grants.ts'
import { compareBySource, compareHoldCounts, type HeldSums, openHolds } from './live-holds.ts'

/** The comparison of an account's live cells: first all open holds, then subjects, then grant cells, in any number of pages. */
export interface Comparison {
  hold(request: LiveRequest): void
  subject(subject: LiveSubject): void
  /** The cells of the grants may be newer than the rest: what came after the last entry that was read is passed over. */
  grant(cell: LiveGrantCell): void
  /** What only shows when all of them have been seen; grants are missed where `grants` says that all were shown. */
  end(grants: boolean): void
}

export function openComparison(journal: Journal, account: LiveAccount, tell: Tell): Comparison {
  compareHead(journal, account, tell)
  compareTerms(journal, account, tell)
  compareCheckpoint(journal, account, tell)
  compareRetained(journal, account, tell)
  compareBooks(journal, account, tell)
  compareGrants(journal, account, tell)
  const holds = openHolds(journal, tell)
  const subjects = openSubjects(journal, account, tell)
  const grants = openGrantCells(journal, tell)
  let held: HeldSums | undefined
  /** The account's own counters hold what all holds add up to. */
  function sums(): HeldSums {
    if (held !== undefined) return held
    held = holds.end()
    compareHoldCounts(account, held, tell)
    compareCounters(journal, account, account.counters, null, ACCOUNT_HOLDER, held, tell)
    compareOverrides(journal, account, account.overrides, ACCOUNT_HOLDER, tell)
    return held
  }
  return {
    hold: holds.read,
    subject: (subject) => subjects.read(subject, sums()),
    grant: grants.read,
    end(all) {
      sums()
      subjects.end()
      if (all) grants.end()
    },
  }
}

function compareHead(journal: Journal, { head }: LiveAccount, tell: Tell): void {
  const { head: last } = journal
  if (head.seq > last.seq) {
    const gone = head.seq - last.seq
    tell(
      'missing',
      `entries ${last.seq + 1} to ${head.seq} are missing: the cell knows ${gone} more than the journal has`,
      {
        seq: head.seq,
      },
    )
  } else if (head.seq < last.seq) {
    tell(
      'chain',
      `the journal goes on to entry ${last.seq}, and the account's cell knows none after ${head.seq}`,
      {
        seq: last.seq,
      },
    )
  } else if (head.hash !== last.hash) {
    tell('chain', "the last entry has another hash than the account's cell knows", { seq: last.seq })
  }
}

function compareTerms({ terms }: Journal, account: LiveAccount, tell: Tell): void {
  for (const field of ['plan', 'status', 'zone'] as const) {
    if (terms[field] !== undefined && terms[field] !== account[field])
      tell(
        'account',
        `the account's ${field} is ${account[field]} in its cell, and ${terms[field]} by its entries`,
      )
  }
}

function compareCheckpoint({ checkpoint }: Journal, account: LiveAccount, tell: Tell): void {
  const says = account.checkpoint ?? null
  if (says !== checkpoint)
    tell(
      'account',
      `the account's newest checkpoint is ${says === null ? 'none' : `entry ${says}`} by its cell, and ${checkpoint === null ? 'none' : `entry ${checkpoint}`} by the journal`,
    )
}

/** Where the audit began behind it, the entry has not been read. */
function compareRetained({ retained, first }: Journal, account: LiveAccount, tell: Tell): void {
  const says = account.retained?.seq ?? null
  if (says === retained || (says !== null && says < first)) return
  tell(
    'account',
    `the account's journal begins behind ${says === null ? 'nothing' : `entry ${says}`} by its cell, and behind ${retained === null ? 'nothing' : `entry ${retained}`} by the journal`,
  )
}

function compareBooks({ books }: Journal, account: LiveAccount, tell: Tell): void {
  let sum = 0n
  for (const name of Object.keys(books) as (keyof Books)[]) {
    const says = account.books[name]
    sum += BigInt(says)
    if (says !== books[name])
      tell(
        'balance',
        `${name} stands at ${cu(says)} in the cell, and its transfers add up to ${cu(books[name])}`,
        {
          amount: says - books[name],
        },
      )
  }
  for (const { remaining } of account.grants) sum += BigInt(remaining)
  if (sum !== 0n)
    tell('balance', `the ledger accounts in the cell sum to ${cu(Number(sum))} and not to zero`, {
      amount: Number(sum),
    })
}

function openSubjects(journal: Journal, account: LiveAccount, tell: Tell) {
  const counts: Record<string, number> = {}
  const seen = new Set<string>()
  return {
    read(subject: LiveSubject, held: HeldSums): void {
      const { dimension, value } = subject
      const holder = holderOf(dimension, value)
      seen.add(holder)
      counts[dimension] = (counts[dimension] ?? 0) + 1
      guarded(tell, `the cell of ${dimension} ${value}`, () => {
        compareCounters(journal, account, subject.counters, dimension, holder, held, tell)
        compareOverrides(journal, account, subject.overrides, holder, tell)
      })
    },
    end(): void {
      for (const [holder, own] of journal.windows) {
        if (holder !== ACCOUNT_HOLDER && !seen.has(holder))
          compareGone(own, account, {}, sayHolder(holder), tell)
      }
      for (const dimension of new Set([...Object.keys(counts), ...Object.keys(account.subjectCounts)])) {
        const [says, right] = [account.subjectCounts[dimension] ?? 0, counts[dimension] ?? 0]
        if (says !== right)
          tell(
            'account',
            `the account's cell counts ${says} values of ${dimension}, and there are ${right} cells of them`,
          )
      }
    },
  }
}

function compareOverrides(
  journal: Journal,
  { lastAt }: LiveAccount,
  overrides: Readonly<Record<string, LiveOverride>>,
  holder: string,
  tell: Tell,
): void {
  const inForce = (untilAt: Millis | null): boolean => untilAt === null || untilAt > lastAt
  const told = journal.overrides.get(holder) ?? new Map<string, readonly [Micros | null, Millis | null]>()
  const whose = sayHolder(holder)
  for (const name of new Set([...told.keys(), ...Object.keys(overrides)])) {
    const [limit, untilAt] = told.get(name) ?? [null, null]
    const right = limit !== null && inForce(untilAt) ? limit : undefined
    const live = overrides[name]
    const says = live !== undefined && inForce(live.untilAt) ? live.limit : undefined
    if (says === right && (says === undefined || live?.untilAt === untilAt)) continue
    if (right === undefined && holder !== ACCOUNT_HOLDER && erased(journal, holder)) continue
    tell(
      'account',
      `the limit ${name}${whose} is overridden with ${sayLimit(says)} in the cell, and with ${sayLimit(right)} by its entries`,
      {
        ...(says === undefined || right === undefined ? {} : { amount: says - right }),
      },
    )
  }
}

const erased = (journal: Journal, holder: string): boolean =>
  journal.erasedOverrides.has(holder.slice(0, holder.indexOf('=')))

const sayLimit = (limit: Micros | undefined): string => (limit === undefined ? 'nothing' : cu(limit))

/** One request's own cell, open or closed. One that has moved on since the last entry that was read is passed over. */
export function compareRequest(journal: Journal, cell: LiveRequest, tell: Tell): void {
  const request = cell.id
  const last = cell.seqs.last ?? 0
  const story = journal.requests.get(request)
  // Without entries there is nothing to compare; before a checkpoint only requests that it knows.
  if (last === 0 || last > journal.head.seq || (last < journal.first && story === undefined)) return
  if (story === undefined)
    return tell('missing', `the request is ${cell.state} in its cell, and no entry tells of it`, { request })
  if ((cell.state === 'open') !== (story.hold !== null))
    tell(
      'hold',
      `the request is ${cell.state} in its cell, and by its entries it is ${story.hold === null ? story.closed : 'open'}`,
      {
        request,
        amount: story.hold?.granted ?? 0,
      },
    )
  if (last !== story.last)
    tell(
      'missing',
      `the request's story ends with entry ${last} by its cell, and with ${story.last} by the journal`,
      {
        request,
      },
    )
  const [says, right] = [cell.charge, story.charge]
  if (says === undefined && right === null) return
  const differ = (what: string, one: Micros, other: Micros): void =>
    tell('charge', `${what} ${cu(one)} in its cell, and ${cu(other)} by its entries`, {
      request,
      amount: one - other,
    })
  if ((says?.cost ?? 0) !== (right?.standing ?? 0))
    differ('what stands charged is', says?.cost ?? 0, right?.standing ?? 0)
  if ((says?.refunded ?? 0) !== (right?.refunded ?? 0))
    differ('what was refunded is', says?.refunded ?? 0, right?.refunded ?? 0)
  compareBySource(says?.parts ?? [], Object.entries(right?.cover ?? {}), (source, one, other) =>
    differ(`${source} covers`, one, other),
  )
}
