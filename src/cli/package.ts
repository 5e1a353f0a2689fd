/** Where this package stands: the checkout's root, or its folder under `node_modules`. */
export const PACKAGE = new URL('.', import.meta.resolve('sluice/package.json'))
