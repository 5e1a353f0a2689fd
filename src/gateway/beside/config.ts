/** What the owner of a gateway writes about other proxies: which of their requests cost what, and whom they are for. */
import { Type } from 'typebox'
import type { Millis } from '../../units.ts'
import type { AttributesIn, QuantitiesIn } from '../../wire.ts'
import { duration, millisOf, patternOf, strict, WORD, wrong } from '../written.ts'

const FIELD = "^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$"
const AMOUNT = '^(0|[1-9][0-9]{0,14})(\\.[0-9]{1,6})?$'

const word = (description: string) => Type.String({ pattern: WORD, description })
const field = (what: string) =>
  Type.Optional(Type.String({ pattern: FIELD, description: `${what}: a header field in lower case` }))
const texts = (value = Type.String({ maxLength: 256 })) =>
  Type.Optional(Type.Record(Type.String({ pattern: WORD }), value, { maxProperties: 16 }))
const amount = Type.String({ pattern: AMOUNT, description: "A decimal in quotes: '2.5'" })
const Price = {
  feature: word('The feature of the policy that pays'),
  cost: Type.Optional(amount),
  quantities: texts(amount),
}
const Otherwise = Type.Optional(
  Type.Union([Type.Literal('refuse'), Type.Literal('pass')], {
    description: 'What no rule fits: refuse or pass',
  }),
)

const ForwardRule = Type.Object(
  {
    methods: Type.Optional(Type.Array(Type.String({ pattern: '^[A-Z]{1,32}$' }), { minItems: 1 })),
    path: Type.String({ pattern: '^[/*]', maxLength: 1_024, description: 'A path, or a pattern with *' }),
    ...Price,
    attributes: texts(),
    hold: duration('How long it is held for a report of what was used'),
  },
  strict,
)
const RateRule = Type.Object(
  {
    domain: word('The domain of the rate limit filter'),
    entries: texts(),
    account: Type.Optional(word('The entry that names the account')),
    key: Type.Optional(word("The entry that has the caller's key")),
    subject: texts(word('The entry that names it')),
    attributes: texts(word('The entry that has it')),
    request_id: Type.Optional(word('The entry that has an id of the request')),
    ...Price,
  },
  strict,
)

/** Fields of the gateway's own document. */
export const BESIDE_FIELDS = {
  forward_auth: Type.Optional(
    Type.Object(
      {
        rules: Type.Array(ForwardRule, { minItems: 1, maxItems: 1_000 }),
        otherwise: Otherwise,
        key_header: field("Where a caller's key is"),
        request_id_header: field('Where the proxy puts an id of its own'),
      },
      strict,
    ),
  ),
  rate_limit: Type.Optional(
    Type.Object(
      { rules: Type.Array(RateRule, { minItems: 1, maxItems: 1_000 }), otherwise: Otherwise },
      strict,
    ),
  ),
  grpc: Type.Optional(
    Type.Object(
      {
        host: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
        port: Type.Integer({ minimum: 0, maximum: 65_535 }),
      },
      strict,
    ),
  ),
}
const Beside = Type.Object(BESIDE_FIELDS)
export type BesideWritten = Type.Static<typeof Beside>

/** What a request of another proxy costs. Neither: the feature's default estimate. */
export interface Price {
  readonly feature: string
  readonly cost: string | undefined
  readonly quantities: QuantitiesIn | undefined
}
export interface ForwardRule extends Price {
  readonly methods: readonly string[] | undefined
  readonly path: RegExp
  readonly attributes: AttributesIn
  /** Held for so long, until somebody tells what was used; undefined: charged at once. */
  readonly holdMs: Millis | undefined
}
export interface ForwardAuthConfig {
  readonly rules: readonly ForwardRule[]
  readonly otherwise: 'refuse' | 'pass'
  readonly keyHeader: string
  /** A header field that the proxy itself sets: whoever can choose its value can repeat a request for nothing. */
  readonly requestIdHeader: string | undefined
}
export interface RateRule extends Price {
  readonly domain: string
  /** Entries that a descriptor must have, by key. */
  readonly entries: ReadonlyMap<string, RegExp>
  /** Exactly one of both is there: the entry that names the account, and the entry that has a caller's key. */
  readonly account: string | undefined
  readonly key: string | undefined
  readonly subject: Readonly<Record<string, string>>
  readonly attributes: Readonly<Record<string, string>>
  readonly requestId: string | undefined
}
export interface RateLimitConfig {
  readonly rules: readonly RateRule[]
  readonly otherwise: 'refuse' | 'pass'
}
export interface BesideConfig {
  readonly forwardAuth: ForwardAuthConfig | undefined
  readonly rateLimit: RateLimitConfig | undefined
  readonly grpc: { readonly host: string; readonly port: number } | undefined
}

export function readBeside({ forward_auth, rate_limit, grpc }: BesideWritten): BesideConfig {
  if (grpc !== undefined && forward_auth === undefined && rate_limit === undefined)
    throw wrong('/grpc', 'there is nothing to serve', 'Write rules under forward_auth or rate_limit.')
  if (rate_limit !== undefined && grpc === undefined)
    throw wrong('/rate_limit', 'it is served over gRPC alone', 'Write a port under grpc.')
  return {
    forwardAuth: forward_auth && {
      rules: forward_auth.rules.map((rule, place) => ({
        ...priceOf(rule, `/forward_auth/rules/${place}`),
        methods: rule.methods,
        path: patternOf(rule.path),
        attributes: rule.attributes ?? {},
        holdMs: rule.hold === undefined ? undefined : millisOf(rule.hold),
      })),
      otherwise: forward_auth.otherwise ?? 'refuse',
      keyHeader: forward_auth.key_header ?? 'authorization',
      requestIdHeader: forward_auth.request_id_header,
    },
    rateLimit: rate_limit && {
      rules: rate_limit.rules.map((rule, place) => rateRuleOf(rule, `/rate_limit/rules/${place}`)),
      otherwise: rate_limit.otherwise ?? 'refuse',
    },
    grpc: grpc && { host: grpc.host ?? '127.0.0.1', port: grpc.port },
  }
}

function rateRuleOf(rule: Type.Static<typeof RateRule>, path: string): RateRule {
  const { domain, account, key, entries = {}, subject = {}, attributes = {}, request_id } = rule
  if ((account === undefined) === (key === undefined))
    throw wrong(
      path,
      'nobody knows who pays',
      'Name the entry of the account, or that of the key: one of both.',
    )
  if (key !== undefined && Object.keys(subject).length > 0)
    throw wrong(`${path}/subject`, 'a key says by itself for whom it stands', 'Leave out one of both.')
  const price = priceOf(rule, path)
  if (price.cost === undefined && price.quantities === undefined)
    throw wrong(path, 'what one hit costs is not said', 'Write cost or quantities.')
  return {
    ...price,
    ...{ domain, account, key, subject, attributes, requestId: request_id },
    entries: new Map(Object.entries(entries).map(([name, pattern]) => [name, patternOf(pattern)])),
  }
}

function priceOf(
  { feature, cost, quantities }: { feature: string; cost?: string; quantities?: Record<string, string> },
  path: string,
): Price {
  if (cost !== undefined && quantities !== undefined)
    throw wrong(`${path}/cost`, 'given beside quantities', 'Write one of both, or neither.')
  return { feature, cost, quantities }
}
