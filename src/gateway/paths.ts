/** Any other path, by the rules of the owner: what it costs is fixed, or stands in what is sent or answered. */
import type { Quantities } from '../wire.ts'
import { type Asked, BadBody, type Endpoint, type Json, type Meter } from './provider.ts'

/** Where a quantity comes from. */
export type Measure =
  | { readonly kind: 'fixed'; readonly amount: string }
  /** A JSON pointer to a number, a list or a text of what was sent. */
  | { readonly kind: 'number' | 'items' | 'characters'; readonly pointer: string }
  /** A JSON pointer into the answer. Until it is there `hold` is held, and charged as estimated where it never is. */
  | { readonly kind: 'answer'; readonly pointer: string; readonly hold: string }

export interface PathRule {
  readonly method: Endpoint['method']
  readonly path: string
  readonly price:
    | { readonly cost: string }
    | { readonly quantities: ReadonlyMap<string, Measure> }
    | undefined
}

/** Its calls pass as they come, whatever they are made of. */
export function endpointOf({ method, path, price }: PathRule): Endpoint {
  const name = `${method} ${path}`
  return { name, method, path, takes: 'any', ...(price !== undefined && { meter: meterOf(price) }) }
}

function meterOf(price: NonNullable<PathRule['price']>): Meter {
  const measures = 'quantities' in price ? [...price.quantities] : []
  const sent = (body: Json): Quantities =>
    Object.fromEntries(
      measures.flatMap(([name, from]) => {
        if (from.kind === 'answer') return []
        return [[name, from.kind === 'fixed' ? from.amount : sentAmount(body, from.kind, from.pointer)]]
      }),
    )
  const answered = measures.filter(([, from]) => from.kind === 'answer')
  const common = { input: undefined, bound: {}, attributes: {}, grows: undefined, stream: false } as const
  return {
    read(body): Asked {
      const model = typeof body.model === 'string' && body.model.length <= 256 ? body.model : undefined
      if ('cost' in price) return { ...common, model, certain: {}, cost: price.cost }
      const guessed = answered.map(([name, from]) => [name, from.kind === 'answer' ? from.hold : '0'])
      return { ...common, model, certain: sent(body), guessed: Object.fromEntries(guessed) }
    },
    write: (body) => body,
    usage(answer, body) {
      if (answered.length === 0) return undefined
      const told = answered.map(([name, from]) => [
        name,
        from.kind === 'answer' ? numberOf(at(answer, from.pointer)) : undefined,
      ])
      return told.some(([, amount]) => amount === undefined)
        ? undefined
        : { ...sent(body), ...(Object.fromEntries(told) as Quantities) }
    },
    answersAny: true,
  }
}

/** What cannot be measured is refused: it must not pass for nothing. */
function sentAmount(body: Json, kind: 'number' | 'items' | 'characters', pointer: string): string {
  const value = at(body, pointer)
  const amount =
    kind === 'number'
      ? numberOf(value)
      : kind === 'items'
        ? Array.isArray(value) && String(value.length)
        : typeof value === 'string' && String([...value].length)
  if (typeof amount === 'string') return amount
  const right = { number: 'a number from 0 on', items: 'a list', characters: 'text' }[kind]
  throw new BadBody(pointer, `it is not ${right}`)
}

function numberOf(value: unknown): string | undefined {
  if (typeof value !== 'number' || !(value >= 0 && value <= 1e9)) return undefined
  return String(Math.ceil(value * 1e6) / 1e6)
}

/** RFC 6901. */
function at(root: unknown, pointer: string): unknown {
  let value = root
  for (const token of pointer.split('/').slice(1)) {
    const name = token.replaceAll('~1', '/').replaceAll('~0', '~')
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}
