/** What the calls take: bodies and the operations of a batch. */
import Type from 'typebox'
import type * as wire from '../../wire.ts'
import {
  AMOUNT,
  AttributesIn,
  amountIn,
  duration,
  id,
  instant,
  Kind,
  list,
  map,
  named,
  optional,
  quantitiesIn,
  RoleSchema,
  Status,
  SubjectIn,
  text,
} from './shapes.ts'

const request = {
  request_id: id('The id of this request, chosen by you'),
  account: id('The account that pays'),
}
const subject = optional(SubjectIn)
const attributes = optional(AttributesIn)
const cost = optional(amountIn('The cost in CU, where no rate card is to price it'))
const minCost = optional(amountIn('The least cost in CU that is of use: makes a partial grant welcome'))
const ttl = optional(duration('How long the hold shall live'))
const feature = id('The feature used')
const endpoint = optional(text('The endpoint that served it'))
const durationMs = optional(duration('How long the work took'))
const estimated = optional(
  Type.Boolean({ description: 'true or false: whether this was counted, and not told by what did the work' }),
)
const reason = (what: string) => text(what)

const reserve = {
  ...request,
  subject,
  feature,
  attributes,
  estimate: optional(quantitiesIn('The estimate, in quantities')),
  cost,
  min_cost: minCost,
  min: optional(quantitiesIn('The least that is of use, in quantities: makes a partial grant welcome')),
  ttl_ms: ttl,
  dry_run: optional(
    Type.Boolean({ description: 'true or false: whether to decide without holding or remembering' }),
  ),
}
const extend = {
  ...request,
  step: Type.Integer({ minimum: 1, description: 'The number of this extend: an integer, counting 1, 2, 3…' }),
  estimate: optional(quantitiesIn('The new total estimate, in quantities')),
  cost,
  ttl_ms: ttl,
  used: optional(quantitiesIn('What has been used so far')),
  min_cost: minCost,
}
const settle = {
  ...request,
  subject,
  feature: optional(feature),
  attributes,
  usage: optional(quantitiesIn('What was really used')),
  cost,
  endpoint,
  started_at: optional(instant('When the work began')),
  duration_ms: durationMs,
  estimated,
}
const release = { ...request, reason: optional(reason('Why nothing was used')) }
const record = {
  ...request,
  subject,
  feature,
  attributes,
  usage: optional(quantitiesIn('What was used')),
  cost,
  at: optional(instant('When it happened')),
  endpoint,
  duration_ms: durationMs,
  estimated,
}

export const ReserveRequest = named('ReserveRequest', reserve)
export const ExtendRequest = named('ExtendRequest', extend)
export const SettleRequest = named('SettleRequest', settle)
export const ReleaseRequest = named('ReleaseRequest', release)
export const RecordRequest = named('RecordRequest', record)

/** The operations of a batch, by their `op`. */
export const OPERATIONS = {
  reserve: named('ReserveOperation', { op: Type.Literal('reserve'), ...reserve }),
  extend: named('ExtendOperation', { op: Type.Literal('extend'), ...extend }),
  settle: named('SettleOperation', { op: Type.Literal('settle'), ...settle }),
  release: named('ReleaseOperation', { op: Type.Literal('release'), ...release }),
  record: named('RecordOperation', { op: Type.Literal('record'), ...record }),
} as const

export const RefundRequest = named('RefundRequest', {
  refund_id: id('The id of this refund, chosen by you'),
  amount: optional(amountIn('How much goes back, in CU')),
  usage: optional(quantitiesIn('What was truly used: the difference goes back')),
  reason: reason('Why'),
})

const metadata = optional(
  Type.Unsafe<Readonly<Record<string, string>>>({
    type: 'object',
    additionalProperties: { type: 'string' },
    description: 'Your own notes: name to text',
  }),
)
const zone = Type.String({
  maxLength: 256,
  description: 'The time zone of calendar windows: an IANA name such as Europe/Berlin',
})
export const AccountRequest = named('AccountRequest', {
  id: id('The id of the account, chosen by you'),
  plan: id('A plan of the policy'),
  time_zone: optional(zone),
  anchor_at: optional(instant('Where periods anchored to the account are counted from')),
  metadata,
})
export const AccountPatch = named('AccountPatch', {
  plan: optional(id('A plan of the policy')),
  status: optional(Status),
  time_zone: optional(zone),
  metadata: optional(
    Type.Unsafe<Readonly<Record<string, string | null>> | null>({
      type: ['object', 'null'],
      additionalProperties: { type: ['string', 'null'] },
      description: 'Merge patch of your notes: null removes a name, null for the whole removes all',
    }),
  ),
})
export const OverridesRequest = named('OverridesRequest', {
  subject: optional(
    map<string>({ type: 'string' }, 'One dimension and its value, or absent for the whole account', 1),
  ),
  overrides: list(
    Type.Object(
      {
        name: id('A guard, <allowance>/<window>, or overage'),
        limit: Type.Unsafe<wire.AmountIn | null>({
          type: ['string', 'number', 'null'],
          description: `The limit in its place: ${AMOUNT}; null takes the override away`,
        }),
        until_at: optional(instant('Until when')),
      },
      { additionalProperties: false },
    ),
  ),
  reason: reason('Why'),
})
export const EraseRequest = named('EraseRequest', {
  dimension: id('The dimension of the subject, such as user'),
  value: id('Its value: whom to forget'),
})

export const GrantRequest = named('GrantRequest', {
  id: id('The id of the grant, chosen by you'),
  kind: Kind,
  amount: amountIn('How much, in CU'),
  priority: optional(Type.Integer({ description: 'Lower burns first: an integer, 100 where absent' })),
  starts_at: optional(instant('Active from')),
  expires_at: optional(instant('Active until')),
  features: optional(list(Type.String({ description: 'A feature, or a pattern such as codex.*' }))),
  subjects: optional(
    Type.Unsafe<Readonly<Record<string, string | readonly string[]>>>({
      type: 'object',
      additionalProperties: { type: ['string', 'array'], items: { type: 'string' } },
      maxProperties: 8,
      description: 'Who may spend it: dimension to one value or a list of values',
    }),
  ),
  reason: optional(reason('Why')),
})
export const RevokeRequest = named('RevokeRequest', { reason: optional(reason('Why')) })

export const KeyRequest = named('KeyRequest', {
  id: id('The id of the key, chosen by you: it stands in every entry the key writes'),
  role: RoleSchema,
  account: optional(id('The only account the key may touch; required with the role `call`')),
  subject,
  expires_at: optional(instant('Valid until')),
})
export const TestClockRequest = named('TestClockRequest', { now: instant('The instant it shall be') })

export const REQUESTS = [
  ...[
    ReserveRequest,
    ExtendRequest,
    SettleRequest,
    ReleaseRequest,
    RecordRequest,
    ...Object.values(OPERATIONS),
  ],
  ...[RefundRequest, AccountRequest, AccountPatch, OverridesRequest, EraseRequest],
  ...[GrantRequest, RevokeRequest, KeyRequest, TestClockRequest],
] as const
