/** Uses and their charges: every use charged once, at the price it was promised, and every correction within what stands. */
import type { Micros, Millis } from '../../units.ts'
import type { ChargeEntry, PrivatePart, UsageEntry } from '../entries.ts'
import { costOf, price, type RateCard } from '../price.ts'
import { cu, type Tell } from './findings.ts'
import type { ChargeTrace, Journal, RequestTrace, UseTrace } from './journal.ts'
import { endHold } from './requests.ts'
import { checkMoves } from './windows.ts'

export interface Prices {
  readonly rateCard: (policyVersion: number, feature: string) => RateCard | undefined
  /** How long ids are protected: a second story of one id within it is told. */
  readonly horizonMs?: Millis | undefined
}

export function readUsage(
  journal: Journal,
  entry: UsageEntry & { readonly request: string },
  person: PrivatePart | null,
): void {
  const { seq, request, op, feature, quantities } = entry
  journal.uncharged.set(seq, {
    request,
    op,
    feature,
    quantities,
    subject: person?.subject ?? null,
    attributes: person?.attributes ?? (person === null ? null : {}),
  })
}

type Charge = ChargeEntry & { readonly request: string }

export function readCharge(journal: Journal, entry: Charge, prices: Prices, tell: Tell): void {
  checkCover(entry, tell)
  checkMoves(entry, tell)
  const story = journal.requests.get(entry.request)
  if (story === undefined) return
  if (entry.refund !== undefined) return readRefund(entry, story, tell)
  const use = journal.uncharged.get(entry.usage)
  if (use === undefined || use.request !== entry.request) {
    tell(
      'charge',
      `${cu(entry.cost)} are charged for entry ${entry.usage}, which is no use that waits for its charge`,
      about(entry),
    )
  } else {
    journal.uncharged.delete(entry.usage)
    checkPrice(entry, use, prices, tell)
  }
  if (entry.corrects === undefined) readFirst(journal, entry, story, use, tell)
  else readDifference(entry, story, use, tell)
}

const about = (entry: Charge, amount: Micros = entry.cost) => ({
  seq: entry.seq,
  request: entry.request,
  amount,
})

/** The cover sums to the cost, and no part of it runs against it. */
function checkCover(entry: Charge, tell: Tell): void {
  let sum = 0
  for (const [source, amount] of entry.cover) {
    sum += amount
    if (!/^(allowance:|grant:).|^(overage|absorbed|debt)$/.test(source))
      tell('charge', `${cu(amount)} are covered by ${source}, which is no source`, about(entry, amount))
    if (amount === 0 || amount < 0 !== entry.cost < 0)
      tell(
        'charge',
        `the cost is ${cu(entry.cost)} and ${source} covers ${cu(amount)} of it`,
        about(entry, amount),
      )
  }
  if (sum !== entry.cost)
    tell(
      'charge',
      `the cost is ${cu(entry.cost)} and the sources cover ${cu(sum)}`,
      about(entry, sum - entry.cost),
    )
}

/** What the use costs by its rate card: with the attributes where they are known, else by the line that was named. */
function checkPrice(entry: Charge, use: UseTrace, prices: Prices, tell: Tell): void {
  const whole = entry.corrects === undefined ? entry.cost : entry.total
  if (whole === undefined) {
    tell('charge', 'a correction does not say what the use costs in all', about(entry))
    return
  }
  if (entry.stated === true) return
  const card = cardOf(prices, entry.policy, use.feature)
  if (card === undefined) {
    tell(
      'charge',
      `${cu(whole)} cannot be worked out again: policy version ${entry.policy} has no rate card for ${use.feature}`,
      about(entry, whole),
    )
    return
  }
  const right = priceAgain(card, entry, use)
  if (right === undefined) {
    tell(
      'charge',
      `line ${entry.line} priced the use, and the rate card of ${use.feature} in policy version ${entry.policy} has none`,
      about(entry, whole),
    )
    return
  }
  if (right.cost !== whole)
    tell(
      'charge',
      `the use of ${use.feature} costs ${cu(right.cost)} by policy version ${entry.policy}, and the charge says ${cu(whole)}`,
      about(entry, whole - right.cost),
    )
  else if (right.line !== entry.line)
    tell(
      'charge',
      `line ${entry.line ?? 'none'} is named as its price, and it is line ${right.line ?? 'none'} of the rate card of ${use.feature}`,
      about(entry, whole),
    )
  const unpriced = entry.unpriced ?? []
  if (right.unpriced !== undefined && right.unpriced.join() !== unpriced.join())
    tell(
      'charge',
      `${unpriced.join(', ') || 'nothing'} is marked unpriced, and it is ${right.unpriced.join(', ') || 'nothing'}`,
      about(entry, whole),
    )
}

/** A policy whose text was damaged has no prices either. */
function cardOf({ rateCard }: Prices, policy: number, feature: string): RateCard | undefined {
  try {
    return rateCard(policy, feature)
  } catch {
    return undefined
  }
}

interface Repriced {
  readonly cost: Micros
  readonly line: number | undefined
  readonly unpriced?: readonly string[]
}
function priceAgain(card: RateCard, entry: Charge, use: UseTrace): Repriced | undefined {
  try {
    if (use.attributes !== null) {
      const { costMicros, line, unpriced } = price(card, use.attributes, use.quantities)
      return { cost: costMicros, line, unpriced }
    }
    if (entry.line === undefined) return { cost: 0, line: undefined }
    const line = card.lines.find(({ index }) => index === entry.line)
    return line === undefined ? undefined : { cost: costOf(line, use.quantities), line: line.index }
  } catch {
    // A cost beyond what an amount can be: no such charge could have been written.
    return { cost: Number.MAX_SAFE_INTEGER, line: entry.line }
  }
}

/** The charge that ends a hold, or stands for a use that none was held for. */
function readFirst(
  journal: Journal,
  entry: Charge,
  story: RequestTrace,
  use: UseTrace | undefined,
  tell: Tell,
): void {
  if (story.charge !== null) {
    tell(
      'charge',
      `${cu(entry.cost)} are charged, and ${cu(story.charge.standing)} had been charged for the request by entry ${story.charge.seq} already`,
      about(entry),
    )
  }
  if (entry.cost < 0)
    tell('charge', `a first charge of ${cu(entry.cost)}; only a correction gives back`, about(entry))
  const granted = story.hold?.granted ?? 0
  const returned = Math.max(0, granted - Math.max(0, entry.cost))
  if ((entry.returned ?? 0) !== returned)
    tell(
      'charge',
      `of ${cu(granted)} held and ${cu(entry.cost)} charged ${cu(returned)} go back, and the charge says ${cu(entry.returned ?? 0)}`,
      about(entry, (entry.returned ?? 0) - returned),
    )
  endHold(journal, entry.request, story, use?.op ?? 'settle')
  story.charge = {
    usage: entry.usage,
    seq: entry.seq,
    subject: use?.subject ?? null,
    standing: entry.cost,
    refunded: 0,
    cover: {},
  }
  addCover(story.charge, entry, tell)
}

/** A hold that had ended by itself and was charged by what was known: the difference to what was really used. */
function readDifference(entry: Charge, story: RequestTrace, use: UseTrace | undefined, tell: Tell): void {
  const charge = corrected(entry, story, tell)
  if (charge === undefined) return
  const gross = charge.standing + charge.refunded
  const due = (entry.total ?? 0) - gross
  const right = due < 0 ? -Math.min(-due, charge.standing) : due
  if (entry.total !== undefined && entry.cost !== right)
    tell(
      'charge',
      `the use costs ${cu(entry.total)} in all and ${cu(gross)} were charged: a correction of ${cu(right)}, and the charge says ${cu(entry.cost)}`,
      about(entry, entry.cost - right),
    )
  charge.usage = entry.usage
  charge.seq = entry.seq
  charge.subject = use?.subject ?? charge.subject
  charge.standing += entry.cost
  addCover(charge, entry, tell)
}

function readRefund(entry: Charge, story: RequestTrace, tell: Tell): void {
  if (entry.cost > 0) tell('charge', `the refund ${entry.refund} takes ${cu(entry.cost)}`, about(entry))
  const charge = corrected(entry, story, tell)
  if (charge === undefined) return
  if (entry.usage !== charge.usage)
    tell(
      'charge',
      `the refund ${entry.refund} names use ${entry.usage}, and the charge is for ${charge.usage}`,
      about(entry),
    )
  charge.standing += entry.cost
  charge.refunded -= entry.cost
  if (charge.standing < 0)
    tell(
      'charge',
      `the refund ${entry.refund} gives ${cu(-entry.cost)} back, ${cu(-charge.standing)} more than stood charged`,
      about(entry, charge.standing),
    )
  if (entry.total !== charge.standing)
    tell(
      'charge',
      `after the refund ${entry.refund} ${cu(charge.standing)} stand charged, and it says ${cu(entry.total ?? 0)}`,
      about(entry, (entry.total ?? 0) - charge.standing),
    )
  addCover(charge, entry, tell)
}

function corrected(entry: Charge, story: RequestTrace, tell: Tell): ChargeTrace | undefined {
  const { charge } = story
  if (charge === null) {
    tell('charge', `${cu(entry.cost)} correct entry ${entry.corrects}, and nothing was charged`, about(entry))
    return undefined
  }
  if (entry.corrects !== charge.seq)
    tell(
      'charge',
      `${cu(entry.cost)} correct entry ${entry.corrects}, and the charge that stands is entry ${charge.seq}`,
      about(entry),
    )
  return charge
}

/** What stands charged by source: a correction never gives a source more than was taken from it. */
function addCover(charge: ChargeTrace, entry: Charge, tell: Tell): void {
  for (const [source, amount] of entry.cover) {
    const stands = (Object.hasOwn(charge.cover, source) ? (charge.cover[source] ?? 0) : 0) + amount
    charge.cover[source] = stands
    if (stands < 0)
      tell(
        'charge',
        `${source} gets ${cu(-amount)} back, ${cu(-stands)} more than it covered`,
        about(entry, stands),
      )
  }
}

/** After the last entry: no use may still wait for its charge. */
export function checkUncharged(journal: Journal, tell: Tell): void {
  for (const [seq, { request, feature }] of journal.uncharged)
    tell('charge', `a use of ${feature} was never charged`, { seq, request })
}
