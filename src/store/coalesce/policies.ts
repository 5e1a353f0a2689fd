import { SluiceError } from '../../errors.ts'
import type { Cell, Key, PolicyCell, SystemCell } from '../../kernel/cells.ts'
import type { Policy, PolicySet } from '../../kernel/plan.ts'
import type { StoreHost } from '../../store.ts'
import type { Reader } from './backend.ts'

export const SYSTEM_ACCOUNT = '@system'
/** Compiled versions kept. Open requests are priced under few; a version that was dropped is compiled again. */
const KEPT = 64

export const EMPTY_POLICY: Policy = {
  version: 0,
  features: new Map(),
  plans: new Map(),
  defaultPlan: undefined,
  usageDimensions: [],
}

/** Thrown out of a step that asked for a policy which has to be fetched first; the step is run again. */
export class PolicyWanted extends Error {
  override readonly name = 'PolicyWanted'
  readonly key: Key
  constructor(key: Key) {
    super(`${key} has not been fetched yet`)
    this.key = key
  }
}

export interface Policies {
  /** The policies as one batch sees them, through its reader of the system account. */
  seenThrough(reader: Reader): PolicySet
}

/**
 * Compiles stored policies when a step first asks for them. The active version is looked up when it is asked for, so
 * that an active policy which this node cannot compile still lets another be published.
 */
export function policies(host: () => StoreHost): Policies {
  const compiled = new Map<number, Policy>()

  function load(version: number, reader: Reader): Policy | undefined {
    const known = compiled.get(version)
    if (known !== undefined) return known
    const cell = demand(reader, `policy:${version}`) as PolicyCell | null
    if (cell === null) return undefined
    const policy = host().compilePolicy(version, cell.text)
    if (compiled.size >= KEPT) compiled.delete(compiled.keys().next().value ?? 0)
    compiled.set(version, policy)
    return policy
  }

  return { seenThrough: (reader) => new Seen(load, reader) }
}

/**
 * A class, since it is made for each batch: an object literal with a getter gets a hidden class of its own, which V8 keeps among old
 * things, and with it all of the batch, until it next looks through those.
 */
class Seen implements PolicySet {
  #active: Policy | undefined
  readonly #load: (version: number, reader: Reader) => Policy | undefined
  readonly #reader: Reader

  constructor(load: (version: number, reader: Reader) => Policy | undefined, reader: Reader) {
    this.#load = load
    this.#reader = reader
  }

  get active(): Policy {
    if (this.#active !== undefined) return this.#active
    const system = demand(this.#reader, 'account') as SystemCell | null
    const version = system?.activePolicy ?? 0
    this.#active = version === 0 ? EMPTY_POLICY : this.at(version)
    if (this.#active !== undefined) return this.#active
    throw new SluiceError('internal', `Policy version ${version} is active and is not stored`)
  }

  at(version: number): Policy | undefined {
    return this.#load(version, this.#reader)
  }
}

function demand(reader: Reader, key: Key): Cell | null {
  const found = reader(key)
  if (found === undefined) throw new PolicyWanted(key)
  return found as Cell | null
}
