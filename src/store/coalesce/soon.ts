export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** After the input that is already here. A browser has no `setImmediate`, and delays nested timers by 4 ms. */
export const soon: (work: () => void) => void =
  typeof setImmediate === 'function' ? (work) => void setImmediate(work) : channelled()

function channelled(): (work: () => void) => void {
  const work: (() => void)[] = []
  const channel = new MessageChannel()
  channel.port1.onmessage = () => work.shift()?.()
  return (next) => {
    work.push(next)
    channel.port2.postMessage(null)
  }
}
