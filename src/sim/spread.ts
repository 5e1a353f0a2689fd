/** Calls to one engine after the other, as a balancer spreads them over nodes. */
import type { Engine } from '../engine/contract.ts'

export function spread(engines: readonly Engine[]): Engine {
  const [first] = engines
  if (first === undefined) throw new TypeError('there is no engine')
  let calls = 0
  return new Proxy(first, {
    get(_, name) {
      if (name === 'close') return () => Promise.all(engines.map((engine) => engine.close())).then(() => {})
      const engine = engines[calls++ % engines.length] as Engine
      return engine[name as keyof Engine]
    },
  })
}
