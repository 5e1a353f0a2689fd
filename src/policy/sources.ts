import type { AllowanceSource, AllowanceWindow, RecurringGrant, Source } from '../kernel/plan.ts'
import { DEFAULT_PRIORITY, type GrantKind } from '../ledger/grants.ts'
import { wholeText } from '../texts.ts'
import { parseMicros } from '../units.ts'
import { quote } from './complaints.ts'
import { windowRule } from './durations.ts'
import { claim, each, type PlanContext, readAmount, resolveFeatures, ruleOf } from './reading.ts'
import type { RecurringGrantDocument, SourceDocument } from './schema.ts'

/** Each kind of grant burns in one step only, and overage comes once. `names` gathers what is taken in this plan. */
export function compileWaterfall(
  sources: readonly SourceDocument[],
  path: string,
  names: Map<string, string>,
  context: PlanContext,
): readonly Source[] {
  const compiled: Source[] = []
  const burnt = new Map<GrantKind, string>()
  let overageAt: string | undefined
  for (const [source, at] of each(sources, path)) {
    if ('allowance' in source) compiled.push(compileAllowance(source, at, names, context))
    else if ('credits' in source) {
      for (const [kind, kindAt] of each(source.credits, `${at}/credits`)) {
        const taken = burnt.get(kind)
        if (taken !== undefined)
          context.complain(
            kindAt,
            `must stand only once in the waterfall: \`${kind}\` is already at ${taken}`,
          )
        else burnt.set(kind, kindAt)
      }
      compiled.push({ kind: 'credits', kinds: each(source.credits, at).map(([kind]) => kind) })
    } else {
      if (overageAt !== undefined)
        context.complain(at, `must be the only overage: there is one at ${overageAt}`)
      overageAt = at
      const limit = readAmount(source.overage.limit, `${at}/overage/limit`, context.complain)
      compiled.push({
        kind: 'overage',
        limit,
        rule: ruleOf(source.overage, 'account', `${at}/overage`, context),
      })
    }
  }
  return compiled
}

type AllowanceDocument = Extract<SourceDocument, { readonly allowance: unknown }>

function compileAllowance(
  source: AllowanceDocument,
  path: string,
  names: Map<string, string>,
  context: PlanContext,
): AllowanceSource {
  const { complain } = context
  const name = source.allowance
  claim(name, `${path}/allowance`, names, complain)
  const seen = new Set<string>()
  const windows = each(source.windows, `${path}/windows`).map(([window, at]): AllowanceWindow => {
    if (seen.has(window.name))
      complain(`${at}/name`, `must be unique in the allowance: ${quote(window.name)} is taken`)
    seen.add(window.name)
    return {
      name: window.name,
      key: wholeText(`${name}/${window.name}`),
      limit: readAmount(window.limit, `${at}/limit`, complain),
      rule: ruleOf(window, 'allowance', at, context),
    }
  })
  return {
    kind: 'allowance',
    name,
    source: wholeText(`allowance:${name}`),
    by: source.by,
    features: resolveFeatures(source.features, `${path}/features`, context),
    windows,
  }
}

/** Names are unique, because the recurrence of a grant is kept under its name. */
export function compileGrants(
  grants: readonly RecurringGrantDocument[] | undefined,
  path: string,
  context: PlanContext,
): readonly RecurringGrant[] {
  const seen = new Set<string>()
  return each(grants, path).map(([grant, at]) => {
    const name = grant.name ?? grant.kind
    if (seen.has(name)) {
      const remedy = grant.name === undefined ? 'give it a `name` of its own' : 'choose another'
      context.complain(
        grant.name === undefined ? at : `${at}/name`,
        `must have a name that is unique in the plan: ${quote(name)} is taken; ${remedy}`,
      )
    }
    seen.add(name)
    return compileGrant(name, grant, at, context)
  })
}

function compileGrant(
  name: string,
  grant: RecurringGrantDocument,
  path: string,
  context: PlanContext,
): RecurringGrant {
  const { complain } = context
  const amount = readAmount(grant.amount, `${path}/amount`, complain)
  if (amount === 0 && parseMicros(grant.amount) === 0) complain(`${path}/amount`, 'must be more than zero')
  if (grant.every === undefined) {
    for (const key of ['rollover', 'anchor', 'week_start'] as const) {
      const message = 'must be left out, or `every` be given: a grant that comes once has no next period'
      if (grant[key] !== undefined) complain(`${path}/${key}`, message, [`${path}/every`])
    }
  }
  const text =
    grant.every === undefined
      ? undefined
      : { per: grant.every, anchor: grant.anchor, weekStart: grant.week_start }
  // Resolved for the sake of its complaints; a grant keeps the patterns, because it may outlive this policy.
  resolveFeatures(grant.features, `${path}/features`, context)
  return {
    name,
    kind: grant.kind,
    amount,
    every:
      text &&
      windowRule(text, { kind: 'recurrence', weekStart: context.weekStart, perKey: 'every' }, path, complain),
    rollover: grant.rollover === undefined ? 0 : readAmount(grant.rollover, `${path}/rollover`, complain),
    priority: grant.priority ?? DEFAULT_PRIORITY,
    features: grant.features && each(grant.features, path).map(([pattern]) => pattern),
  }
}
