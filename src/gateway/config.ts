/**
 * What the owner of a gateway writes, in YAML: where upstreams are, which feature of the policy pays for what, and how streams
 * and waits go on per plan. Prices and limits are the policy's. Checked whole before anything listens.
 */
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { parse } from 'yaml'
import type { Millis } from '../units.ts'
import { BESIDE_FIELDS, type BesideConfig, readBeside } from './beside/config.ts'
import { endpointOf, type Measure } from './paths.ts'
import type { Endpoint, Provider } from './provider.ts'
import { PROVIDERS } from './providers.ts'
import { duration, millisOf, NAME, patternOf, strict, WORD, whole, wrong } from './written.ts'

const Upstream = Type.Object(
  {
    provider: Type.Union(Object.keys(PROVIDERS).map((name) => Type.Literal(name)) as never),
    url: Type.String({ pattern: '^https?://', description: 'Where it is: https://api.example.com' }),
    key_env: Type.Optional(
      Type.String({
        pattern: '^[A-Z_][A-Z0-9_]*$',
        description: 'The environment variable that has its key',
      }),
    ),
    id_key_env: Type.Optional(
      Type.String({
        pattern: '^[A-Z_][A-Z0-9_]*$',
        description: 'The environment variable with what ids of stored things are signed with; its key',
      }),
    ),
    shared_storage: Type.Optional(
      Type.Boolean({
        description: 'Whether callers may name what is stored there and bound to nobody: files and the like',
      }),
    ),
    connect_timeout: duration('How long a connection may take'),
    first_byte_timeout: duration('How long it may take to begin its answer'),
    idle_timeout: duration('How long it may be silent within an answer, and a caller take nothing of it'),
    total_timeout: duration('How long an answer may take in all'),
    connections: whole('Connections at once', 1, 10_000),
  },
  strict,
)
const Target = Type.Object(
  {
    upstream: Type.Optional(Type.String({ pattern: NAME, description: 'One of `upstreams`' })),
    model: Type.Optional(Type.String({ pattern: WORD, description: 'How that upstream calls the model' })),
  },
  strict,
)
const Route = Type.Object(
  {
    model: Type.Optional(Type.String({ pattern: WORD, description: 'A model, or a pattern with *' })),
    endpoint: Type.Optional(Type.String({ pattern: WORD, description: 'An endpoint, or a pattern with *' })),
    upstream: Type.String({ pattern: NAME, description: 'One of `upstreams`' }),
    as: Type.Optional(Type.String({ pattern: WORD, description: 'How the upstream calls the model' })),
    feature: Type.String({ pattern: WORD, description: 'The feature of the policy that pays' }),
    fallback: Type.Optional(Type.Array(Target, { maxItems: 8 })),
  },
  strict,
)
const Plan = Type.Object(
  {
    wait: duration('The longest wait that is waited here'),
    when_spent: Type.Optional(Type.Union([Type.Literal('end'), Type.Literal('debt')])),
    fallback: Type.Optional(Type.Boolean()),
  },
  strict,
)
const AMOUNT = '^(0|[1-9][0-9]{0,8})(\\.[0-9]{1,6})?$'
const amount = (description: string) => Type.String({ pattern: AMOUNT, description })
const number = Type.Number({ minimum: 0, maximum: 1e9 })
const pointer = (description: string) => Type.String({ pattern: '^(/[^/]+)+$', maxLength: 256, description })
const Path = Type.Object(
  {
    method: Type.Union([Type.Literal('GET'), Type.Literal('POST'), Type.Literal('DELETE')]),
    path: Type.String({
      pattern: '^(/(:[a-z_]+|[A-Za-z0-9._~-]+))+$',
      description: 'A path; `:id` stands for any part',
    }),
    upstream: Type.String({ pattern: NAME, description: 'One of `upstreams`' }),
    feature: Type.Optional(
      Type.String({ pattern: WORD, description: 'The feature that pays; without one it costs nothing' }),
    ),
    cost: Type.Optional(Type.Union([amount('What each call costs, in CU'), number])),
    quantities: Type.Optional(
      Type.Record(
        Type.String({ pattern: NAME }),
        Type.Union([
          number,
          Type.Object({ number: pointer('A JSON pointer to a number of the body') }, strict),
          Type.Object({ items: pointer('A JSON pointer to a list of the body') }, strict),
          Type.Object({ characters: pointer('A JSON pointer to a text of the body') }, strict),
          Type.Object({ answer: pointer('A JSON pointer into the answer'), hold: number }, strict),
        ]),
        { minProperties: 1, maxProperties: 16 },
      ),
    ),
  },
  strict,
)
/** What a configuration may say. */
export const configSchema = Type.Object(
  {
    upstreams: Type.Optional(Type.Record(Type.String({ pattern: NAME }), Upstream)),
    routes: Type.Optional(Type.Array(Route, { maxItems: 1_000 })),
    paths: Type.Optional(Type.Array(Path, { maxItems: 1_000 })),
    plans: Type.Optional(Type.Record(Type.String(), Plan)),
    max_body_mb: whole('The largest body of a call', 1, 1_024),
    usual_output_tokens: whole('What is held where a caller gives no bound', 1, 1_000_000),
    least_output_tokens: whole('The least that is worth to begin for', 1, 1_000_000),
    waiting: Type.Optional(
      Type.Object(
        {
          per_account: whole('Calls of one account that may wait', 0, 100_000),
          in_all: whole('Calls that may wait', 0, 1_000_000),
        },
        strict,
      ),
    ),
    jobs: Type.Optional(
      Type.Object(
        {
          poll: duration('How often an upstream is asked about a job that runs'),
          lost_after: duration('How long it may tell nothing of a job before that is lost'),
          on_lost: Type.Optional(Type.Union([Type.Literal('release'), Type.Literal('charge')])),
        },
        strict,
      ),
    ),
    on_unavailable: Type.Optional(
      Type.Union([
        Type.Literal('closed'),
        Type.Literal('open'),
        Type.Object({ per_account: Type.String({ pattern: '^(0|[1-9][0-9]*)(\\.[0-9]{1,6})?$' }) }, strict),
      ]),
    ),
    ...BESIDE_FIELDS,
  },
  strict,
)

export interface UpstreamConfig {
  readonly name: string
  readonly provider: Provider
  /** Without a slash at its end; what it has of a path comes before the call's. */
  readonly url: string
  readonly key: string | undefined
  /** What ids of stored things are signed with (`ids.ts`); undefined: anything, until this process ends. */
  readonly idKey: string | undefined
  /** Whether callers may name what is stored there and bound to nobody. */
  readonly sharedStorage: boolean
  readonly connectTimeoutMs: Millis
  readonly firstByteTimeoutMs: Millis
  readonly idleTimeoutMs: Millis
  readonly totalTimeoutMs: Millis
  readonly connections: number
}
/** Where a call may be sent, and as which model. */
export interface TargetConfig {
  readonly upstream: UpstreamConfig
  readonly model: string | undefined
}
export interface RouteConfig {
  /** As it was written, for people. */
  readonly modelText: string
  readonly model: RegExp
  readonly endpoint: RegExp
  readonly feature: string
  /** In the order in which they are tried: the first is the route's own. */
  readonly targets: readonly TargetConfig[]
}
/** A path that no provider knows. */
export interface PathConfig {
  readonly endpoint: Endpoint
  readonly upstream: UpstreamConfig
  readonly route: RouteConfig
}
export interface PlanConfig {
  readonly waitMs: Millis
  readonly whenSpent: 'end' | 'debt'
  readonly fallback: boolean
}
export interface JobsConfig {
  readonly pollMs: Millis
  /** After so long without a word of it from its upstream a job is lost: its hold is given back, or charged as ordered. */
  readonly lostAfterMs: Millis
  readonly onLost: 'release' | 'charge'
}
export interface GatewayConfig {
  readonly upstreams: ReadonlyMap<string, UpstreamConfig>
  readonly routes: readonly RouteConfig[]
  /** Before the providers' own. */
  readonly paths: readonly PathConfig[]
  readonly plans: ReadonlyMap<string, PlanConfig>
  /** Of plans that are not named. */
  readonly plan: PlanConfig
  readonly maxBodyBytes: number
  readonly usualOutputTokens: number
  readonly leastOutputTokens: number
  readonly waitingPerAccount: number
  readonly waitingInAll: number
  readonly jobs: JobsConfig
  readonly onUnavailable: 'closed' | 'open' | { readonly mode: 'bounded'; readonly perAccount: string }
  /** What other proxies may ask. */
  readonly beside: BesideConfig
}

const LEAST_POLL_MS = 10
const USUAL_PLAN: PlanConfig = { waitMs: 0, whenSpent: 'end', fallback: true }

/** Throws `invalid` with the path of the first mistake. `env` has the upstreams' keys. */
export function readConfig(text: string, env: Readonly<Record<string, string | undefined>>): GatewayConfig {
  const document = documentOf(text)
  const upstreams = new Map(
    Object.entries(document.upstreams ?? {}).map(([name, one]) => [name, upstreamOf(name, one, env)]),
  )
  const upstream = (name: string, path: string): UpstreamConfig => {
    const found = upstreams.get(name)
    if (found === undefined) throw wrong(path, `there is no upstream ${name}`, 'Name one of `upstreams`.')
    return found
  }
  const { routes = [], waiting = {}, jobs = {}, on_unavailable: away = 'closed', plans = {} } = document
  const beside = readBeside(document)
  if (routes.length === 0 && beside.forwardAuth === undefined && beside.rateLimit === undefined)
    throw wrong(
      '/routes',
      'there is nothing to do',
      'Write routes, or rules under forward_auth or rate_limit.',
    )
  const { '*': every = {}, ...named } = plans
  const plan = planOf(every, USUAL_PLAN)
  return {
    upstreams,
    routes: routes.map((route, place) => {
      const own = upstream(route.upstream, `/routes/${place}/upstream`)
      return {
        modelText: route.model ?? '*',
        model: patternOf(route.model ?? '*'),
        endpoint: patternOf(route.endpoint ?? '*'),
        feature: route.feature,
        targets: [
          { upstream: own, model: route.as },
          ...(route.fallback ?? []).map((to, n) => {
            const path = `/routes/${place}/fallback/${n}`
            const target = to.upstream === undefined ? own : upstream(to.upstream, `${path}/upstream`)
            if (target.provider !== own.provider)
              throw wrong(path, 'it speaks another format', `Name an upstream of ${own.provider.name}.`)
            return { upstream: target, model: to.model ?? route.as }
          }),
        ],
      }
    }),
    paths: (document.paths ?? []).map((path, place) =>
      pathOf(path, `/paths/${place}`, upstream(path.upstream, `/paths/${place}/upstream`)),
    ),
    plans: new Map(Object.entries(named).map(([name, one]) => [name, planOf(one, plan)])),
    plan,
    maxBodyBytes: (document.max_body_mb ?? 32) * 1024 * 1024,
    usualOutputTokens: document.usual_output_tokens ?? 1_000,
    leastOutputTokens: document.least_output_tokens ?? 16,
    waitingPerAccount: waiting.per_account ?? 100,
    waitingInAll: waiting.in_all ?? 10_000,
    jobs: {
      pollMs: Math.max(LEAST_POLL_MS, millisOf(jobs.poll ?? '5s')),
      lostAfterMs: millisOf(jobs.lost_after ?? '1h'),
      onLost: jobs.on_lost ?? 'release',
    },
    onUnavailable: typeof away === 'string' ? away : { mode: 'bounded', perAccount: away.per_account },
    beside,
  }
}

type Written = Type.Static<typeof configSchema>

function documentOf(text: string): Written {
  let value: unknown
  try {
    value = parse(text, { maxAliasCount: 100 })
  } catch (error) {
    throw wrong('', `it is not YAML: ${(error as Error).message.split('\n', 1)[0]}`, 'Mend that line.')
  }
  for (const { instancePath, message } of Value.Errors(configSchema, value)) {
    throw wrong(instancePath, message, 'docs/reference/gateway.md has all fields.')
  }
  return value as Written
}

function upstreamOf(
  name: string,
  written: Type.Static<typeof Upstream>,
  env: Readonly<Record<string, string | undefined>>,
): UpstreamConfig {
  const keyIn = (field: 'key_env' | 'id_key_env'): string | undefined => {
    const variable = written[field]
    if (variable === undefined) return undefined
    const key = env[variable]
    if (key === undefined || key === '')
      throw wrong(`/upstreams/${name}/${field}`, `${variable} is not set`, 'Put the key into that variable.')
    return key
  }
  const key = keyIn('key_env')
  return {
    name,
    provider: PROVIDERS[written.provider as keyof typeof PROVIDERS],
    url: written.url.replace(/\/+$/, ''),
    key,
    idKey: keyIn('id_key_env') ?? key,
    sharedStorage: written.shared_storage ?? false,
    connectTimeoutMs: millisOf(written.connect_timeout ?? '5s'),
    firstByteTimeoutMs: millisOf(written.first_byte_timeout ?? '10m'),
    idleTimeoutMs: millisOf(written.idle_timeout ?? '2m'),
    totalTimeoutMs: millisOf(written.total_timeout ?? '1h'),
    connections: written.connections ?? 1_024,
  }
}

function pathOf(written: Type.Static<typeof Path>, at: string, upstream: UpstreamConfig): PathConfig {
  const { method, path, feature, cost, quantities } = written
  if (!upstream.sharedStorage && isKept(path, upstream))
    throw wrong(
      `${at}/path`,
      'whoever has a key would reach what anybody has stored there',
      `Leave it out, or write shared_storage: true for the upstream ${upstream.name} where that is meant.`,
    )
  const priced = [cost, quantities].filter((one) => one !== undefined).length
  if (priced !== (feature === undefined ? 0 : 1))
    throw feature === undefined
      ? wrong(at, 'it has a price, and nobody pays', 'Name the `feature` that pays.')
      : wrong(at, 'its price is missing, or given twice', 'Give one of `cost` and `quantities`.')
  const price =
    quantities === undefined
      ? cost === undefined
        ? undefined
        : { cost: decimal(cost) }
      : { quantities: new Map(Object.entries(quantities).map(([name, from]) => [name, measureOf(from)])) }
  const every = patternOf('*')
  return {
    endpoint: endpointOf({ method, path, price }),
    upstream,
    route: {
      model: every,
      modelText: '*',
      endpoint: every,
      feature: feature ?? '',
      targets: [{ upstream, model: undefined }],
    },
  }
}

/** A part that stands for anything may be the name of what is kept as well. */
function isKept(path: string, { provider }: UpstreamConfig): boolean {
  const parts = path.split('/').slice(1)
  const first = parts[parts.lastIndexOf('v1') + 1] ?? ''
  return first.startsWith(':') || provider.keeps.includes(first)
}

type WrittenMeasure = NonNullable<Type.Static<typeof Path>['quantities']>[string]

function measureOf(from: WrittenMeasure): Measure {
  if (typeof from === 'number') return { kind: 'fixed', amount: decimal(from) }
  if ('number' in from) return { kind: 'number', pointer: from.number }
  if ('items' in from) return { kind: 'items', pointer: from.items }
  if ('characters' in from) return { kind: 'characters', pointer: from.characters }
  return { kind: 'answer', pointer: from.answer, hold: decimal(from.hold) }
}

/** At most six places, rounded up. */
const decimal = (value: number | string): string =>
  typeof value === 'string' ? value : String(Math.ceil(Number((value * 1e6).toFixed(3))) / 1e6)

function planOf(written: Type.Static<typeof Plan>, base: PlanConfig): PlanConfig {
  return {
    waitMs: written.wait === undefined ? base.waitMs : millisOf(written.wait),
    whenSpent: written.when_spent ?? base.whenSpent,
    fallback: written.fallback ?? base.fallback,
  }
}
