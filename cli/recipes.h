// qlora recipes: lists and copies the ready recipes.
#pragma once

namespace CLI {
class App;
}

void add_recipes_command(CLI::App& app);
