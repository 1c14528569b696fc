// qlora reference: the recipe keys as docs/recipes.md.
#pragma once

namespace CLI {
class App;
}

void add_reference_command(CLI::App& app);
