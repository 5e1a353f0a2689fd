/** What the calls answer, as the contract tells it; tests hold what leaves to it. */
import type { TSchema } from 'typebox'
import Type from 'typebox'
import type * as wire from '../../wire.ts'
import {
  amount,
  ENTRY_KINDS,
  Kind,
  list,
  named,
  nullableInstant,
  optional,
  Quantities,
  RoleSchema,
  ref,
  Status,
  texts,
} from './shapes.ts'

export const Share = named('Share', {
  source: Type.String({ description: '`allowance:<name>`, `grant:<id>`, `overage`, `absorbed` or `debt`' }),
  amount: amount(),
})
export const Limit = named('Limit', {
  kind: Type.Enum(['rate', 'concurrency', 'budget', 'allowance', 'credits', 'overage'], { type: 'string' }),
  name: Type.String(),
  by: optional(Type.String()),
  subject: optional(Type.String()),
  unit: Type.String({ description: '`requests`, `cu`, `holds`, or the name of a quantity' }),
  limit: amount(),
  used: amount(),
  held: amount('Held and used are always apart'),
  remaining: amount(),
  resets_at: optional(Type.Integer()),
})
const Unblock = named(
  'Unblock',
  {
    wait_until: optional(Type.Integer()),
    at_latest: optional(Type.Literal(true)),
    credits: optional(amount()),
    at_most: optional(amount('A smaller request that fits now')),
  },
  'All of it together would admit the request, if nothing else happened meanwhile',
)
const State = Type.Enum(
  ['none', 'open', 'settled', 'released', 'expired_released', 'expired_charged', 'recorded'],
  { type: 'string', description: 'What has become of the request, now' },
)
const shares = list(ref(Share))
const limits = list(ref(Limit))
const replayed = Type.Boolean({ description: 'Whether this is the first answer again' })
export const DecisionAnswer = named('DecisionAnswer', {
  request_id: Type.String(),
  outcome: Type.Enum(['allow', 'partial', 'wait', 'deny'], { type: 'string' }),
  reason: Type.String({ description: 'One of the ordered list of reasons' }),
  cost: amount('What was asked, in all'),
  granted: amount('What is held, in all, after this decision'),
  granted_estimate: optional(Quantities),
  from: shares,
  expires_at: nullableInstant('The end of the hold'),
  retry_after_ms: optional(Type.Integer()),
  unblock: optional(ref(Unblock)),
  limits,
  policy_version: Type.Integer(),
  decided_at: Type.Integer(),
  state: State,
  replayed,
  dry_run: optional(Type.Literal(true)),
})
export const ChargeAnswer = named('ChargeAnswer', {
  request_id: Type.String(),
  state: State,
  charged: amount(),
  from: shares,
  returned: amount('What went back from the hold'),
  absorbed: amount(),
  debt: amount(),
  unpriced: optional(list(Type.String())),
  replayed,
})
export const ReleaseAnswer = named('ReleaseAnswer', {
  request_id: Type.String(),
  state: State,
  returned: amount(),
  replayed,
})
export const RefundAnswer = named('RefundAnswer', {
  request_id: Type.String(),
  refund_id: Type.String(),
  refunded: amount(),
  to: shares,
  charged: amount('What stays charged after all corrections'),
  replayed,
})

const grantView = {
  id: Type.String(),
  kind: Kind,
  amount: amount(),
  remaining: amount(),
  held: amount(),
  priority: Type.Integer(),
  starts_at: Type.Integer(),
  expires_at: nullableInstant('Null where it never expires'),
  features: optional(list(Type.String())),
  subjects: optional(
    Type.Unsafe<Readonly<Record<string, readonly string[]>>>({
      type: 'object',
      additionalProperties: { type: 'array', items: { type: 'string' } },
    }),
  ),
  status: Type.Enum(['active', 'pending', 'expired', 'revoked', 'spent'], { type: 'string' }),
}
export const GrantView = named('Grant', grantView)
export const GrantAnswer = named('GrantAnswer', {
  ...grantView,
  repaid: amount('What of it repaid debt at once'),
  replayed,
})
const WindowView = named('Window', {
  name: Type.String(),
  limit: amount(),
  used: amount(),
  held: amount(),
  remaining: amount(),
  resets_at: optional(Type.Integer({ description: 'Absent for a window that has not opened' })),
})
const AllowanceView = named('Allowance', {
  name: Type.String(),
  by: optional(Type.String()),
  subject: optional(Type.String()),
  windows: list(ref(WindowView)),
})
const OverrideView = named('Override', {
  name: Type.String(),
  by: optional(Type.String()),
  subject: optional(Type.String()),
  limit: amount(),
  until_at: nullableInstant('Null where it stays'),
  reason: Type.String(),
})
export const AccountView = named('Account', {
  id: Type.String(),
  plan: Type.String(),
  status: Status,
  time_zone: Type.String(),
  anchor_at: Type.Integer(),
  metadata: texts('Your own notes'),
  created_at: Type.Integer(),
  revision: Type.Integer({ description: 'The entity tag' }),
  open_holds: Type.Integer(),
  credits: Type.Object(
    {
      available: amount('What could be spent now'),
      held: amount(),
      debt: amount(),
      grants: list(ref(GrantView)),
    },
    { additionalProperties: false },
  ),
  allowances: list(ref(AllowanceView)),
  overage: Type.Unsafe<wire.Limit | null>({ anyOf: [{ $ref: 'Limit#' }, { type: 'null' }] }),
  limits,
  overrides: list(ref(OverrideView)),
})
export const EraseAnswer = named('EraseAnswer', {
  entries: Type.Integer({ description: 'How many entries no longer name the subject' }),
})
export const HoldView = named('Hold', {
  request_id: Type.String(),
  feature: Type.String(),
  subject: texts('Who acts'),
  held: amount(),
  from: shares,
  reserved_at: Type.Integer(),
  expires_at: Type.Integer(),
})
export const SubjectView = named('SubjectState', {
  dimension: Type.String(),
  value: Type.String(),
  limits,
  overrides: list(ref(OverrideView)),
})
export const EntryView = named('Entry', {
  id: Type.String({ description: '`<account>/<seq>`' }),
  account: Type.String(),
  seq: Type.Integer(),
  kind: Type.Enum(ENTRY_KINDS, { type: 'string' }),
  at: Type.Integer(),
  recorded_at: Type.Integer(),
  actor: Type.String(),
  request: optional(Type.String()),
  previous: optional(Type.String()),
  hash: Type.String(),
  subject: optional(texts('Who acted')),
  attributes: optional(texts('What the rate card was asked about')),
  erased: optional(Type.Literal(true)),
  body: Type.Unsafe<Readonly<Record<string, unknown>>>({ type: 'object', additionalProperties: true }),
})
export const Explanation = named('Explanation', {
  account: Type.String(),
  request_id: Type.String(),
  state: State,
  feature: optional(Type.String()),
  subject: optional(texts('Who acted')),
  attributes: optional(texts('What the rate card was asked about')),
  held: amount(),
  charged: amount(),
  expires_at: nullableInstant('The end of the hold'),
  entries: list(ref(EntryView)),
  refusals: list(
    Type.Object(
      {
        at: Type.Integer(),
        reason: Type.String(),
        count: Type.Integer(),
        feature: Type.String(),
        answer: ref(DecisionAnswer),
      },
      { additionalProperties: false },
    ),
  ),
  story: list(Type.String()),
})
const RefusalView = named('Refusal', {
  at: Type.Integer(),
  reason: Type.String(),
  count: Type.Integer({ description: 'How many like it there were in that second' }),
  feature: Type.String(),
  subject: texts('Who was refused'),
  answer: ref(DecisionAnswer),
})
const seq = Type.Integer({ description: 'Up to this entry all has been told: the `id` of the event' })
/** What the data of an event is, by its kind. */
export const AccountShown = named('AccountEvent', {
  event: Type.Literal('account'),
  seq,
  account: ref(AccountView),
})
export const EntryAdded = named('EntryEvent', { event: Type.Literal('entry'), seq, entry: ref(EntryView) })
export const RefusalNoted = named('RefusalEvent', {
  event: Type.Literal('refusal'),
  seq,
  refusal: ref(RefusalView),
})
export const UsageRow = named('UsageRow', {
  start_at: Type.Integer(),
  group: Type.Unsafe<Readonly<Record<string, string | null>>>({
    type: 'object',
    additionalProperties: { type: ['string', 'null'] },
  }),
  requests: Type.Integer(),
  charged: amount(),
  quantities: Quantities,
  sources: texts('Source to amount'),
})

const Complaint = named('Complaint', {
  path: Type.String(),
  message: Type.String(),
  line: optional(Type.Integer()),
  column: optional(Type.Integer()),
})
const policyVersion = {
  version: Type.Integer(),
  published_at: Type.Integer(),
  actor: Type.String(),
  active: Type.Boolean(),
}
export const PolicyVersionView = named('PolicyVersion', policyVersion)
export const PolicyView = named('Policy', {
  ...policyVersion,
  text: Type.String(),
  warnings: list(ref(Complaint)),
})
export const PolicyCheck = named('PolicyCheck', {
  valid: Type.Boolean(),
  complaints: list(ref(Complaint)),
  warnings: list(ref(Complaint)),
})

const keyView = {
  id: Type.String(),
  role: RoleSchema,
  account: optional(Type.String()),
  subject: optional(texts('The dimensions that bind every call')),
  created_at: Type.Integer(),
  expires_at: nullableInstant('Null where it never expires'),
  revoked_at: nullableInstant('Null while it is valid'),
}
export const KeyView = named('Key', keyView)
export const KeyMade = named('KeyMade', {
  ...keyView,
  secret: Type.String({ description: 'Told once, here' }),
})
export const ClockAnswer = named('Clock', {
  accepted: Type.Literal(true, { description: 'The clock as it stands is the truth' }),
})
export const TestClockAnswer = named('TestClock', { now: Type.Integer() })

export const Problem = named(
  'Problem',
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.String(),
    detail: Type.String(),
    path: optional(Type.String({ description: 'Where in the input, as a JSON pointer' })),
    remedy: optional(Type.String({ description: 'What to do about it' })),
    retry_after_ms: optional(Type.Integer()),
    first: optional(Type.Unknown({ description: 'The first answer, where a conflict has one' })),
    complaints: optional(list(ref(Complaint))),
  },
  'RFC 9457',
)
export const BatchAnswer = named('BatchAnswer', {
  results: list(
    Type.Object(
      {
        status: Type.Integer(),
        body: Type.Unsafe<wire.DecisionAnswer | wire.ChargeAnswer | wire.ReleaseAnswer | wire.Problem>({
          anyOf: [DecisionAnswer, ChargeAnswer, ReleaseAnswer, Problem].map((schema) => ref(schema)),
        }),
      },
      { additionalProperties: false },
    ),
  ),
})

export const ANSWERS = [
  ...[Share, Limit, Unblock, DecisionAnswer, ChargeAnswer, ReleaseAnswer, RefundAnswer],
  ...[GrantView, GrantAnswer, WindowView, AllowanceView, OverrideView, AccountView, EraseAnswer, HoldView],
  SubjectView,
  ...[
    EntryView,
    Explanation,
    RefusalView,
    AccountShown,
    EntryAdded,
    RefusalNoted,
    UsageRow,
    Complaint,
    PolicyVersionView,
    PolicyView,
    PolicyCheck,
    KeyView,
    KeyMade,
  ],
  ...[ClockAnswer, TestClockAnswer, Problem, BatchAnswer],
] as const

/** A page of a list. */
export const pageAnswer = <T extends TSchema>(item: T) =>
  Type.Object(
    {
      items: list(ref(item)),
      next: Type.Unsafe<string | null>({
        type: ['string', 'null'],
        description: 'The cursor of the next page; null at the end',
      }),
    },
    { additionalProperties: false },
  )
