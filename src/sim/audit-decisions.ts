/** Reserves and extends, held against the auditor's books. */
import type { PolicyDocument } from '../policy/schema.ts'
import type { Millis } from '../units.ts'
import type * as wire from '../wire.ts'
import { lengthOf } from './calendar.ts'
import { answerOf, expectCode, expectSame, expectThat, isSameMeaning, type Told } from './disagreement.ts'
import {
  amountOf,
  type Books,
  type HoldBook,
  joined,
  keyOf,
  matchesFeature,
  newRequest,
  noteSubject,
  open,
  planOf,
  type RequestBook,
  splitBySource,
} from './naive-books.ts'
import {
  type Ask,
  budgetWindow,
  decide,
  guardsFor,
  missingDimensions,
  opened,
  rateRoom,
  walk,
} from './naive-decide.ts'
import { inMicros, told as inWords, micros, priceOf } from './naive-prices.ts'
import { admit } from './naive-rates.ts'
import { checkLines } from './naive-view.ts'

type Quantities = Readonly<Record<string, bigint>>
interface Priced {
  readonly cost: bigint
  /** Undefined where a cost was told. */
  readonly quantities: Quantities | undefined
}

export function reserved(books: Books, op: wire.ReserveRequest, told: Told<wire.DecisionAnswer>): void {
  const what = `reserve ${op.request_id}`
  const known = books.requests.get(op.request_id)
  if (known !== undefined) return reservedAgain(known, op, told)
  const price = priceAsked(books, books.policy, op)
  if (typeof price === 'string') return expectCode(told, price, what)
  const barrier = barrierTo(books, op, told)
  if (barrier !== undefined) return expectRefused(answerOf(told, what), barrier)
  if (missingDimensions(books, op.feature, op.subject ?? {}).length > 0)
    return expectCode(told, 'subject_missing', what)
  const answer = answerOf(told, what)
  expectSame(micros(answer.cost), price.cost, `cost of ${what}`)
  const subject = op.subject ?? {}
  const { cost: need, quantities } = price
  const ask: Ask = {
    feature: op.feature,
    subject,
    need,
    floor: floorOf(books, op),
    quantities,
    whole: quantities,
    least: op.min === undefined ? undefined : inMicros(op.min),
    priceOfPart: (part) => priceInMicros(books.policy, op, part),
    isExtend: false,
  }
  if (!isGranted(books, answer, ask)) return checkLines(books, answer.limits, op.feature, subject)
  if (op.dry_run === true) return

  const request = {
    ...newRequest(books, op.request_id),
    feature: op.feature,
    subject,
    attributes: op.attributes ?? {},
  }
  request.state = 'open'
  request.reserved = { op, answer }
  request.hold = newHold(books, request, op.ttl_ms)
  expectSame(answer.expires_at, request.hold.expiresAt, `end of ${what}`)
  books.requests.set(op.request_id, request)
  for (const [dimension, value] of Object.entries(subject)) noteSubject(books, dimension, value)
  hold(books, request, answer, price, false)
  checkLines(books, answer.limits, op.feature, subject)
}

function newHold(books: Books, request: RequestBook, ttlMs: Millis | undefined): HoldBook {
  const { hold } = planOf(books)
  const lifetime = lengthOf(hold?.max_lifetime ?? '24h') as Millis
  const ttl = Math.min(ttlMs ?? (lengthOf(hold?.ttl ?? '10m') as Millis), lifetime)
  const places = guardsFor(books, request.feature, request.subject).filter((one) => 'concurrency' in one)
  return {
    parts: [],
    budgets: [],
    takes: [],
    places: places.map((guard) => keyOf(guard.name, guard.by, request.subject)),
    reservedAt: books.now,
    expiresAt: books.now + ttl,
    maxLifetimeMs: lifetime,
    onExpiry: hold?.on_expiry ?? 'release',
    used: undefined,
    quantities: undefined,
  }
}

/** The same id: the first answer, whatever has become of the request since. */
function reservedAgain(request: RequestBook, op: wire.ReserveRequest, told: Told<wire.DecisionAnswer>): void {
  const what = `reserve ${op.request_id} again`
  const { reserved: first, used } = request
  if (first === undefined && used === undefined) return expectRefused(answerOf(told, what), 'released')
  if (first === undefined || !isSameMeaning(op, first.op)) {
    expectCode(told, 'conflict', what)
    const carried = first === undefined ? used?.answer : first.answer
    return expectSame(
      'first' in told && told.first,
      { ...carried, replayed: true, state: request.state },
      `the conflict of ${what}`,
    )
  }
  expectSame(answerOf(told, what), { ...first.answer, replayed: true, state: request.state }, what)
}

/** The price, or the error's code. What no line prices may be reserved only where a rate of the plan meters it. */
function priceAsked(
  books: Books,
  policy: PolicyDocument,
  op: Pick<wire.ReserveRequest, 'feature' | 'attributes' | 'estimate' | 'cost'>,
): Priced | string {
  const feature = policy.features[op.feature]
  if (feature === undefined) return 'feature_unknown'
  if (op.cost !== undefined) return { cost: micros(op.cost), quantities: undefined }
  const estimate = op.estimate ?? feature.default_estimate
  if (estimate === undefined) return 'estimate_missing'
  const price = priceOf(feature, op.attributes ?? {}, estimate)
  const metered = (planOf(books).guards ?? []).map((guard) => ('rate' in guard ? guard.rate.meter : ''))
  if (price?.hasLine !== true || price.unpriced.some((name) => !metered.includes(name)))
    return 'price_missing'
  return { cost: price.cost, quantities: inMicros(estimate) }
}

function priceInMicros(
  policy: PolicyDocument,
  { feature, attributes }: Pick<wire.ReserveRequest, 'feature' | 'attributes'>,
  quantities: Quantities,
): bigint {
  const words = Object.entries(quantities).map(([name, amount]) => [name, inWords(amount)])
  return priceOf(policy.features[feature], attributes ?? {}, Object.fromEntries(words)).cost
}

function floorOf(books: Books, op: wire.ReserveRequest): bigint | undefined {
  if (op.min_cost !== undefined) return micros(op.min_cost)
  if (op.min === undefined) return undefined
  return priceOf(books.policy.features[op.feature], op.attributes ?? {}, op.min)?.cost
}

function barrierTo(
  books: Books,
  op: wire.ReserveRequest,
  told: Told<wire.DecisionAnswer>,
): string | undefined {
  const isFull = 'answer' in told && told.answer.reason === 'subject_limit'
  if (books.status !== 'active') return `account_${books.status}`
  if (!matchesFeature(planOf(books).features, op.feature)) return 'feature_not_allowed'
  for (const [dimension, { max }] of Object.entries(planOf(books).subjects ?? {})) {
    const value = op.subject?.[dimension]
    const seen = books.subjects.get(dimension) ?? new Set()
    if (value === undefined || seen.size - (seen.has(value) ? 1 : 0) < max) continue
    // Who was idle may have lost the place, or may not.
    if (books.mayHaveForgotten ? isFull : !seen.has(value)) return 'subject_limit'
  }
  return undefined
}

/** Whether something was granted; throws where it should have been otherwise. */
function isGranted(books: Books, answer: wire.DecisionAnswer, ask: Ask, before = 0n): boolean {
  const { blockers, granted, isPartWelcome, isUnsure } = decide(books, ask)
  const [reason] = blockers
  const isRefused = answer.outcome === 'deny' || answer.outcome === 'wait'
  if (isUnsure && isRefused && ['too_large', 'rate_full'].includes(answer.reason)) return false
  if (reason === undefined && !(isUnsure && answer.outcome === 'partial')) {
    expectSame([answer.outcome, answer.reason], ['allow', 'granted'], 'a request that nothing stands against')
    return true
  }
  const part = partOf(ask, granted, before)
  const isNothing = part === 0n && ask.need > 0n
  if (reason !== undefined && (!isPartWelcome || (part ?? granted) < (ask.floor ?? 0n) || isNothing)) {
    expectRefused(answer, reason)
    return false
  }
  if (isUnsure && isRefused) return false
  const more = micros(answer.granted) - before
  expectThat(more <= granted, `granted ${inWords(more)}, but only ${inWords(granted)} fits`)
  expectThat(more >= (ask.floor ?? 0n), `granted ${inWords(more)}, less than is welcome`)
  if (!isUnsure) expectSame(more, part ?? granted, 'the part granted')
  expectSame(
    [answer.outcome, answer.reason],
    ['partial', 'granted_in_part'],
    `${inWords(granted)} fits of what asks`,
  )
  return true
}

/** The cost of the largest part of an estimate that an amount pays for; undefined where a cost was told. */
function partOf({ whole, least = {}, priceOfPart }: Ask, amount: bigint, before: bigint): bigint | undefined {
  if (whole === undefined || priceOfPart === undefined) return undefined
  let low = 0n
  let high = FINEST
  const costAt = (share: bigint): bigint => priceOfPart(scaled(whole, least, share)) - before
  while (low < high) {
    const middle = (low + high + 1n) / 2n
    if (costAt(middle) <= amount) low = middle
    else high = middle - 1n
  }
  const cost = costAt(low)
  return cost <= amount && cost > 0n ? cost : 0n
}

const FINEST = 1_000_000_000_000n

/** A share of what is above the least of each; what was asked for in whole units is granted in whole units, or as the least. */
function scaled(quantities: Quantities, least: Quantities, share: bigint): Quantities {
  const parts = Object.entries(quantities).map(([name, quantity]) => {
    const lowest = least[name] ?? 0n
    const from = lowest < quantity ? lowest : quantity
    const exact = from + ((quantity - from) * share) / FINEST
    const whole = quantity % 1_000_000n === 0n ? exact - (exact % 1_000_000n) : exact
    return [name, whole < from ? from : whole]
  })
  return Object.fromEntries(parts)
}

function expectRefused(answer: wire.DecisionAnswer, reason: string): void {
  expectThat(
    answer.outcome === 'deny' || answer.outcome === 'wait',
    `${answer.outcome} of ${answer.granted}, but there is ${reason}`,
  )
  expectSame(answer.reason, reason, 'reason of a refusal')
}

/** Enters what a decision granted, after checking how it was split and how far it goes. */
function hold(
  books: Books,
  request: RequestBook,
  answer: wire.DecisionAnswer,
  price: Priced,
  isExtend: boolean,
): void {
  const held = request.hold as HoldBook
  const before = amountOf(held.parts)
  const more = micros(answer.granted) - before
  const quantities = checkGrant(request, answer, price, isExtend)
  const parts = opened(books, walk(books, more, request))
  for (const part of parts) expectThat(part.amount > 0n, 'a split has a part of nothing')
  held.parts = isExtend ? joined(books, [...held.parts, ...parts]) : parts
  expectSame(answer.from, splitBySource(held.parts), 'the split')
  expectSame(amountOf(held.parts), micros(answer.granted), 'the sum of the split')
  let countedMore = more > 0n
  for (const guard of guardsFor(books, request.feature, request.subject)) {
    if ('budget' in guard && more > 0n) {
      held.budgets.push({ window: open(books, budgetWindow(books, guard, request.subject)), amount: more })
    } else if ('rate' in guard) {
      const { meter } = guard.rate
      if (isExtend && meter === 'requests') continue
      const already = isExtend ? (held.quantities?.[meter] ?? 0n) : 0n
      const counted =
        meter === 'cost' ? more : meter === 'requests' ? 1n : (quantities?.[meter] ?? 0n) - already
      if (counted <= 0n) continue
      countedMore = true
      const { book, pace } = rateRoom(books, guard, request.subject)
      held.takes.push({ name: guard.name, meter, book, admission: admit(book, pace, counted, books.now) })
    }
  }
  if (quantities !== undefined && (!isExtend || countedMore)) held.quantities = quantities
}

/** An extend that asks for no more of anything asks its guards nothing. */
const countsMore =
  ({ quantities }: Ask) =>
  (guard: ReturnType<typeof guardsFor>[number]): boolean =>
    'rate' in guard && (quantities?.[guard.rate.meter] ?? 0n) > 0n

/** A part is at least what the caller finds useful and at most what fits; quantities are those that it pays for. */
function checkGrant(
  request: RequestBook,
  answer: wire.DecisionAnswer,
  price: Priced,
  isExtend: boolean,
): Quantities | undefined {
  if (answer.outcome === 'allow') {
    const before = amountOf(request.hold?.parts ?? [])
    const total = isExtend && price.cost < before ? before : price.cost
    expectSame(micros(answer.granted), total, 'what an allowed request holds')
    return price.quantities
  }
  if (price.quantities === undefined) {
    expectSame(answer.granted_estimate, undefined, 'quantities of a request that told a cost')
    return undefined
  }
  expectThat(answer.granted_estimate !== undefined, 'a part of an estimate tells no quantities')
  const quantities = inMicros(answer.granted_estimate)
  for (const [name, quantity] of Object.entries(quantities))
    expectThat(quantity <= (price.quantities[name] ?? 0n), `more ${name} than was asked for`)
  const cost = priceOf(
    request.prices.features[request.feature],
    request.attributes,
    answer.granted_estimate,
  )?.cost
  expectSame(cost, micros(answer.granted), 'cost of the quantities granted')
  return quantities
}

export function extended(books: Books, op: wire.ExtendRequest, told: Told<wire.DecisionAnswer>): void {
  const what = `extend ${op.request_id} to step ${op.step}`
  const request = books.requests.get(op.request_id)
  if (request === undefined) return expectCode(told, 'request_unknown', what)
  if (request.state === 'recorded') return expectCode(told, 'conflict', what)
  const last = request.steps.at(-1)
  if (last !== undefined && last.op.step === op.step) {
    const repeated = { ...last.answer, replayed: true, state: request.state }
    if (isSameMeaning(last.op, op)) return expectSame(answerOf(told, what), repeated, `${what} again`)
    expectCode(told, 'conflict', what)
    return expectSame('first' in told && told.first, repeated, `the conflict of ${what}`)
  }
  if (request.hold === undefined) return expectRefused(answerOf(told, what), 'hold_closed')
  if (op.step !== request.steps.length + 1) return expectCode(told, 'step_out_of_order', what)
  if (books.status !== 'active') return expectRefused(answerOf(told, what), `account_${books.status}`)
  const before = amountOf(request.hold.parts)
  const asked = { ...op, feature: request.feature, attributes: request.attributes }
  const price: Priced | string =
    op.cost === undefined && op.estimate === undefined
      ? { cost: before, quantities: request.hold.quantities }
      : priceAsked(books, request.prices, asked)
  if (typeof price === 'string') return expectCode(told, price, what)
  if (missingDimensions(books, request.feature, request.subject).length > 0)
    return expectCode(told, 'subject_missing', what)
  grow(books, request, op, answerOf(told, what), price, before)
}

function grow(
  books: Books,
  request: RequestBook,
  op: wire.ExtendRequest,
  answer: wire.DecisionAnswer,
  price: Priced,
  before: bigint,
): void {
  const held = request.hold as HoldBook
  const over = (amount: bigint): bigint => (amount > before ? amount - before : 0n)
  const more = Object.entries(price.quantities ?? {}).map(([name, amount]) => [
    name,
    amount - (held.quantities?.[name] ?? 0n),
  ])
  const need = over(price.cost)
  const ask: Ask = {
    feature: request.feature,
    subject: request.subject,
    need,
    floor: op.min_cost === undefined ? undefined : over(micros(op.min_cost)),
    quantities: Object.fromEntries(more),
    whole: price.quantities,
    least: held.quantities,
    priceOfPart: (part) => priceInMicros(request.prices, request, part),
    isExtend: true,
  }
  const asks = need > 0n || guardsFor(books, request.feature, request.subject).some(countsMore(ask))
  if (asks && !isGranted(books, answer, ask, before))
    return checkLines(books, answer.limits, request.feature, request.subject)
  hold(books, request, answer, price, true)
  checkLines(books, answer.limits, request.feature, request.subject)
  const ttl = op.ttl_ms ?? (lengthOf(planOf(books).hold?.ttl ?? '10m') as Millis)
  const lastAt = held.reservedAt + held.maxLifetimeMs
  held.expiresAt = Math.max(held.expiresAt, Math.min(lastAt, books.now + ttl))
  expectSame(answer.expires_at, held.expiresAt, 'end of the extended hold')
  request.steps.push({ op, answer })
  if (op.used === undefined) return
  const cost = priceOf(request.prices.features[request.feature], request.attributes, op.used)?.cost ?? 0n
  held.used = { cost, quantities: inMicros(op.used) }
}
