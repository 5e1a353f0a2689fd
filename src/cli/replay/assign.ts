/** To whom requests belong, where the trace does not say: a seeded rule, the same on every machine. */
import type { Plan } from '../../kernel/plan.ts'

/** Numbers in [0, 1), drawn by sfc32 (Chris Doty-Humphrey, PractRand): the same for the same seed. */
export function createRandom(seed: number): () => number {
  let a = 0x9e3779b9
  let b = 0x243f6a88
  let c = seed | 0
  let counter = 1
  const next = (): number => {
    const sum = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + sum
    return (sum >>> 0) / 2 ** 32
  }
  // The first numbers of near seeds are alike.
  for (let warm = 0; warm < 16; warm += 1) next()
  return next
}

/** Draws 0 … n − 1 with probability proportional to 1, 1/2, 1/3, … (Zipf with exponent 1). */
export function createZipf(n: number, random: () => number): () => number {
  const sums: number[] = []
  let sum = 0
  for (let rank = 1; rank <= n; rank += 1) {
    sum += 1 / rank
    sums.push(sum)
  }
  return () => {
    const wanted = random() * sum
    let [low, high] = [0, n - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((sums[middle] ?? 0) > wanted) high = middle
      else low = middle + 1
    }
    return low
  }
}

export interface Owner {
  readonly account: string
  readonly plan: Plan
  readonly subject: Readonly<Record<string, string>>
}

export interface AssignOptions {
  /** Absent: an account for each client. */
  readonly accounts: number | undefined
  /** Users in each account, where the trace names no clients. */
  readonly users: number
  readonly plans: readonly { readonly plan: Plan; readonly weight: number }[]
  readonly seed: number
}

export const DEFAULT_ACCOUNTS = 100

/** Answers the owner of each request in turn, and what the rule is. */
export function createAssigner(options: AssignOptions, hasClients: boolean) {
  const { seed, users, plans } = options
  const accounts = options.accounts ?? DEFAULT_ACCOUNTS
  const pick = createZipf(accounts, createRandom(seed))
  const pickUser = createZipf(users, createRandom(seed + 1))
  const planOf = createPlanner(plans, createRandom(seed + 2))
  const clients = new Map<string, string>()
  const digits = String(accounts).length
  const nameOf = (index: number): string => `acct-${String(index + 1).padStart(digits, '0')}`

  /** Clients are dealt to the accounts in the order in which they first appear. */
  function accountOf(client: string): string {
    let account = clients.get(client)
    if (account === undefined) {
      account = options.accounts === undefined ? client : nameOf(clients.size % accounts)
      clients.set(client, account)
    }
    return account
  }

  return {
    owner(client: string | undefined): Owner {
      const account = client === undefined ? nameOf(pick()) : accountOf(client)
      const user = client ?? `u${pickUser() + 1}`
      const plan = planOf(account)
      return { account, plan, subject: subjectFor(plan, user) }
    },
    rule: hasClients ? clientRule(options.accounts) : drawnRule(accounts, users, seed),
    plans: planRule(plans, seed),
  }
}

function createPlanner(plans: AssignOptions['plans'], random: () => number): (account: string) => Plan {
  const known = new Map<string, Plan>()
  const total = plans.reduce((sum, { weight }) => sum + weight, 0)

  function planAt(place: number): Plan {
    let rest = place
    for (const { plan, weight } of plans) {
      rest -= weight
      if (rest < 0) return plan
    }
    return plans.at(-1)?.plan as Plan
  }
  return (account) => {
    let plan = known.get(account)
    if (plan === undefined) {
      plan = planAt(random() * total)
      known.set(account, plan)
    }
    return plan
  }
}

/** All dimensions that the plan counts by: users differ, everything else is one for the account. */
function subjectFor(plan: Plan, user: string): Readonly<Record<string, string>> {
  const dimensions = new Set<string>(plan.subjects.map(({ dimension }) => dimension))
  for (const { by } of plan.guards) if (by !== undefined) dimensions.add(by)
  for (const source of plan.waterfall) {
    if (source.kind === 'allowance' && source.by !== undefined) dimensions.add(source.by)
  }
  const named = [...dimensions].map((dimension) => [
    dimension,
    dimension === 'user' ? user : `${dimension}-1`,
  ])
  return Object.fromEntries(named)
}

const clientRule = (accounts: number | undefined): string =>
  accounts === undefined
    ? 'each client of the trace is an account'
    : `clients of the trace are dealt to ${accounts} accounts as they appear`

function drawnRule(accounts: number, users: number, seed: number): string {
  const whom = users === 1 ? '' : `, user k of ${users} likewise`
  return `account k of ${accounts} gets a request with probability proportional to 1/k${whom} (Zipf, sfc32, seed ${seed})`
}

function planRule(plans: AssignOptions['plans'], seed: number): string {
  const [only] = plans
  if (plans.length === 1) return `all accounts on ${only?.plan.name}`
  return `drawn by weight: ${plans.map(({ plan, weight }) => `${plan.name}:${weight}`).join(', ')} (seed ${seed + 2})`
}
