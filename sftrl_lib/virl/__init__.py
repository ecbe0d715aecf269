from .cities import city_names
from .city import generate_city, load_city, mini_benchmark
from .environment import Navigation
from .folders import read_city, write_city
from .panoramas import read_panoramas
from .prompts import ACTION_SPACES, expert_pairs, expert_response, task_prompt
from .rails import Rail, RailBuilder, RailPoint, bearing, compass_word, spatial_word, turn_word
from .schema import City, Leg, Route
from .verifier import OUTCOMES, Grade, grade

__all__ = [
    "ACTION_SPACES",
    "OUTCOMES",
    "City",
    "Grade",
    "Leg",
    "Navigation",
    "Rail",
    "RailBuilder",
    "RailPoint",
    "Route",
    "bearing",
    "city_names",
    "compass_word",
    "expert_pairs",
    "expert_response",
    "generate_city",
    "grade",
    "load_city",
    "mini_benchmark",
    "read_city",
    "read_panoramas",
    "spatial_word",
    "task_prompt",
    "turn_word",
    "write_city",
]
