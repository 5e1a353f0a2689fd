/** Settles, records, releases and refunds, held against the auditor's books. */
import type * as wire from '../wire.ts'
import { answerOf, expectCode, expectSame, expectThat, isSameMeaning, type Told } from './disagreement.ts'
import {
  amountOf,
  type Books,
  chargedOf,
  type GrantBook,
  newRequest,
  noteSubject,
  type Part,
  type RequestBook,
  splitBySource,
} from './naive-books.ts'
import {
  chargeDifference,
  chargeHold,
  chargeRecorded,
  correct,
  releaseHold,
  standing,
  type Use,
} from './naive-exits.ts'
import { inMicros, micros, priceOf } from './naive-prices.ts'

type UseRequest = wire.SettleRequest | wire.RecordRequest

export function used(
  books: Books,
  by: 'settle' | 'record',
  op: UseRequest,
  told: Told<wire.ChargeAnswer>,
): void {
  const what = `${by} ${op.request_id}`
  const request = books.requests.get(op.request_id)
  if (request?.used !== undefined) return usedAgain(request, by, op, told)
  const isReserved = request?.reserved !== undefined
  if (isReserved) {
    if (op.feature !== undefined && op.feature !== request.feature) return expectCode(told, 'conflict', what)
    if (op.subject !== undefined && !isSameMeaning(op.subject, request.subject))
      return expectCode(told, 'conflict', what)
  } else {
    if (op.feature === undefined) return expectCode(told, 'request_unknown', what)
    if (books.policy.features[op.feature] === undefined) return expectCode(told, 'feature_unknown', what)
  }
  const one: RequestBook = isReserved
    ? { ...request }
    : { ...newRequest(books, op.request_id), feature: op.feature as string, subject: op.subject ?? {} }
  if (op.attributes !== undefined) one.attributes = op.attributes
  const price = priceUsed(one, op)
  const answer = answerOf(told, what)
  books.requests.set(op.request_id, one)
  const { use, unpriced } = price
  charge(books, one, use, answer)
  one.state = isReserved ? 'settled' : 'recorded'
  one.used = { by, op, answer }
  for (const [dimension, value] of Object.entries(one.subject)) noteSubject(books, dimension, value)
  expectSame(answer.state, one.state, `state after ${what}`)
  expectSame(answer.replayed, false, `${what} is no repeat`)
  expectSame([...(answer.unpriced ?? [])].sort(), unpriced, `unpriced in ${what}`)
}

function priceUsed(
  request: RequestBook,
  op: UseRequest,
): { readonly use: Use; readonly unpriced: readonly string[] } {
  if (op.cost !== undefined) return { use: { cost: micros(op.cost), quantities: undefined }, unpriced: [] }
  const usage = op.usage ?? {}
  const price = priceOf(request.prices.features[request.feature], request.attributes, usage)
  return { use: { cost: price.cost, quantities: inMicros(usage) }, unpriced: price.unpriced }
}

/** Charges it in the books, and holds what was told of it against them. */
function charge(books: Books, request: RequestBook, use: Use, answer: wire.ChargeAnswer): void {
  const what = `the charge of ${request.id}`
  const held = amountOf(request.hold?.parts ?? [])
  let parts: readonly Part[]
  if (request.hold !== undefined) {
    parts = chargeHold(books, request, use).parts
    expectSame(micros(answer.returned), held > use.cost ? held - use.cost : 0n, `returned by ${what}`)
  } else if (request.state === 'expired_charged') {
    chargeDifference(books, request, use, newGrant(books, `refund:${request.id}`))
    parts = standing(request)
  } else {
    parts = chargeRecorded(books, request, use, request.reserved !== undefined).parts
    expectSame(answer.returned, '0', `returned by ${what}`)
  }
  expectSame(micros(answer.charged), use.cost, `cost of ${what}`)
  expectSame(answer.from, splitBySource(parts), `cover of ${what}`)
  for (const source of ['absorbed', 'debt'] as const) {
    const sum = amountOf(parts.filter((part) => part.source === source))
    expectSame(micros(answer[source]), sum, `${source} in ${what}`)
  }
}

function newGrant(books: Books, id: string): (amount: bigint) => GrantBook {
  return (amount) => ({
    id,
    kind: 'adjustment',
    amount,
    priority: 100,
    startsAt: books.now,
    expiresAt: null,
    features: undefined,
    subjects: undefined,
    hasStarted: true,
    charged: [],
    moves: [],
  })
}

function usedAgain(
  request: RequestBook,
  by: 'settle' | 'record',
  op: UseRequest,
  told: Told<wire.ChargeAnswer>,
): void {
  const what = `${by} ${op.request_id} again`
  const first = request.used as NonNullable<RequestBook['used']>
  const repeated = { ...first.answer, replayed: true, state: request.state }
  // What a reserve has told may be left out by one caller and named by another.
  const own = request.reserved === undefined ? {} : request.subject
  const isSameRequest =
    (op.feature ?? request.feature) === request.feature && isSameMeaning(op.subject ?? own, request.subject)
  const { feature: _, subject: __, ...meant } = first.op
  const { feature: ___, subject: ____, ...means } = op
  if (first.by === by && isSameRequest && isSameMeaning(meant, means))
    return expectSame(answerOf(told, what), repeated, what)
  expectCode(told, 'conflict', what)
  expectSame('first' in told && told.first, repeated, `the conflict of ${what}`)
}

export function released(books: Books, op: wire.ReleaseRequest, told: Told<wire.ReleaseAnswer>): void {
  const what = `release ${op.request_id}`
  const answer = answerOf(told, what)
  const request = books.requests.get(op.request_id)
  const isNew = request === undefined || request.hold !== undefined
  if (request === undefined) {
    books.requests.set(op.request_id, { ...newRequest(books, op.request_id), state: 'released' })
    expectSame(answer.returned, '0', `returned by ${what}`)
  } else if (request.hold !== undefined) {
    expectSame(micros(answer.returned), releaseHold(books, request), `returned by ${what}`)
    request.state = 'released'
  }
  const state = books.requests.get(op.request_id)?.state
  expectSame([answer.state, answer.replayed], [state, !isNew], what)
}

export function refunded(
  books: Books,
  id: string,
  op: wire.RefundRequest,
  told: Told<wire.RefundAnswer>,
): void {
  const what = `refund ${op.refund_id} of ${id}`
  const request = books.requests.get(id)
  if (request === undefined) return expectCode(told, 'request_unknown', what)
  const first = request.refunds.get(op.refund_id)
  if (first !== undefined) {
    const repeated = { ...first.answer, replayed: true }
    const { reason: _, ...meant } = first.op
    const { reason: __, ...means } = op
    if (isSameMeaning(meant, means)) return expectSame(answerOf(told, what), repeated, `${what} again`)
    expectCode(told, 'conflict', what)
    return expectSame('first' in told && told.first, repeated, `the conflict of ${what}`)
  }
  if (request.charges.length === 0) return expectCode(told, 'invalid', what)
  const before = chargedOf(request)
  if (op.usage !== undefined && pricedFor(request, op.usage).unpriced.length > 0)
    return expectCode(told, 'price_missing', what)
  const wanted = refundWanted(request, op, before)
  if (wanted < 0n || wanted > before) return expectCode(told, 'invalid', what)
  const answer = answerOf(told, what)
  expectSame(micros(answer.refunded), wanted, what)
  const parts = correct(books, request, wanted, newGrant(books, `refund:${id}:${op.refund_id}`))
  expectSame(
    answer.to,
    splitBySource(parts.map((part) => ({ ...part, amount: -part.amount }))),
    `where ${what} goes`,
  )
  expectSame(micros(answer.charged), before - wanted, `charged after ${what}`)
  expectThat(!answer.replayed, `${what} is no repeat`)
  request.refunds.set(op.refund_id, { op, answer })
}

function refundWanted(request: RequestBook, op: wire.RefundRequest, before: bigint): bigint {
  if (op.amount !== undefined) return micros(op.amount)
  if (op.usage === undefined) return before
  return before - pricedFor(request, op.usage).cost
}

const pricedFor = (request: RequestBook, usage: wire.QuantitiesIn) =>
  priceOf(request.prices.features[request.feature], request.attributes, usage)
